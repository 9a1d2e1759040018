// SPDX-License-Identifier: MIT
// Math: y = x where x > 0, else w x; dx = dy f'; dw = sum over x <= 0 of x dy (LeakyRelu in
//   ../../activations.hpp with a slope that is learned).
// Shapes: runs of n elements; w is one number or as long as the run.
// Parallelism: kSize elements an instruction.
// Memory: forward reads 1 and writes 1 element, backward 2 and 2.
// Source: He, Zhang, Ren, Sun 2015, arXiv:1502.01852.
#include "prelu.hpp"

#include "../isa.hpp"
#include "vectors.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

constexpr int kUnroll = 4;

template <class T>
void forward(T* y, const T* x, const T* slope, int slope_step, int64_t n) {
  using V = Vec<T>;
  const V one = slope[0];
  for_vectors<V, kUnroll>(0, n, [&](int64_t i, int, auto access) {
    const V value = access.load(x + i), w = slope_step == 0 ? one : access.load(slope + i);
    access.store(y + i, select(value > V(0), value, w * value));
  });
}

template <class T>
void backward(T* dx, T* terms, const T* dy, const T* x, const T* slope, int slope_step, int64_t n) {
  using V = Vec<T>;
  const V one = slope[0];
  for_vectors<V, kUnroll>(0, n, [&](int64_t i, int, auto access) {
    const V d = access.load(dy + i), value = access.load(x + i);
    const V w = slope_step == 0 ? one : access.load(slope + i);
    const auto positive = value > V(0);
    if (dx != nullptr) access.store(dx + i, select(positive, d, w * d));
    if (terms != nullptr) access.store(terms + i, select(positive, V(0), value * d));
  });
}

template <class T>
constexpr PreluKernels<T> kTable = {forward<T>, backward<T>};

}  // namespace

template <>
const PreluKernels<float>& table() {
  return kTable<float>;
}
template <>
const PreluKernels<double>& table() {
  return kTable<double>;
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
