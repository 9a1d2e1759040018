// SPDX-License-Identifier: MIT
// Math: y = f(x); dx = dy f'; row = f(row + bias), formulas in ../../activations.hpp.
// Shapes: runs of n elements.
// Parallelism: kSize elements an instruction; the last few go through the same vector code with
//   the missing lanes filled by zeros, so that an element's result never depends on its place.
//   Formulas with a quick and a general way (activation_math.hpp) choose for each lane.
// Memory: 8 bytes an element of float forward, 12 backward.
#include "activation.hpp"

#include "../isa.hpp"
#include "activation_math.hpp"
#include "vectors.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

constexpr int kUnroll = 2;  // vectors a round; the processor overlaps the rounds by itself

// f(i, access) for the vectors of [0, n). "flatten" inlines the formula, whatever its length: a
// call would cost as much as the formula and load its constants again each time.
template <class V, class F>
[[gnu::flatten]] inline void for_run(int64_t n, F f) {
  int64_t i = 0;
  for (; i + kUnroll * V::kSize <= n; i += kUnroll * V::kSize) {
#pragma GCC unroll 8
    for (int u = 0; u < kUnroll; ++u) f(i + u * V::kSize, Whole<V>{});
  }
  for (; i < n; i += V::kSize) {
    f(i, Part<V>{static_cast<int>(n - i < V::kSize ? n - i : V::kSize)});
  }
}

template <class T>
void forward(T* y, const T* x, int64_t n, Activation activation) {
  using V = Vec<T>;
  visit(activation, [=](auto f) {
    for_run<V>(n,
               [=](int64_t i, auto access) { access.store(y + i, f.value(access.load(x + i))); });
  });
}

// dy f' from whichever value was saved; a formula without from_output is never asked for it.
template <bool kFromOutput, class F, class V>
V gradient(F f, V dy, V saved) {
  if constexpr (kFromOutput && requires { f.from_output(dy, saved); }) {
    return f.from_output(dy, saved);
  } else {
    return f.from_input(dy, saved);
  }
}

template <bool kFromOutput, class T>
void backward_from(T* dx, const T* dy, const T* saved, int64_t n, Activation activation) {
  using V = Vec<T>;
  visit(activation, [=](auto f) {
    for_run<V>(n, [=](int64_t i, auto access) {
      access.store(dx + i, gradient<kFromOutput>(f, access.load(dy + i), access.load(saved + i)));
    });
  });
}

template <class T>
void backward(T* dx, const T* dy, const T* saved, bool saved_is_output, int64_t n,
              Activation activation) {
  if (saved_is_output) {
    backward_from<true>(dx, dy, saved, n, activation);
  } else {
    backward_from<false>(dx, dy, saved, n, activation);
  }
}

template <class T>
void bias_forward(T* row, T* preactivation, const T* bias, int64_t n, Activation activation) {
  using V = Vec<T>;
  visit(activation, [=](auto f) {
    for_run<V>(n, [=](int64_t i, auto access) {
      V z = access.load(row + i);
      if (bias != nullptr) z = z + access.load(bias + i);
      if (preactivation != nullptr) access.store(preactivation + i, z);
      access.store(row + i, f.value(z));
    });
  });
}

template <class T>
void stream(T* y, const T* x, int64_t n) {
  using V = Vec<T>;
  if (n == 0) return native::finish_streams();
  int64_t i = 0;
  for (; i + V::kSize <= n; i += V::kSize) native::stream(y + i, V::load(x + i).v);
  if (i < n) V::load_partial(x + i, n - i).store_partial(y + i, n - i);
}

template <class T>
constexpr ActivationKernels<T> kTable = {forward<T>, backward<T>, bias_forward<T>, stream<T>};

}  // namespace

template <>
const ActivationKernels<float>& table() {
  return kTable<float>;
}
template <>
const ActivationKernels<double>& table() {
  return kTable<double>;
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
