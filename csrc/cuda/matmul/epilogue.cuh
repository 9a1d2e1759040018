// SPDX-License-Identifier: MIT
// What happens to an element of the product before it is stored, for every rung alike.
//
// Math:        z = alpha sum + bias[j] + beta c[i,j];  c[i,j] = f(z);  z may be kept.
// Shapes:      sum is what a thread accumulated: one element, or a register tile of them.
// Parallelism: each thread finishes its own elements. The activation is a switch on the device: one
//              uniform branch an element, where a template would multiply every rung by ten.
// Memory:      c is read only where beta is not 0. A register tile stores 16 bytes of Accumulate<T>
//              at a time where c's address and row stride allow; the bits are the same. Of 16-bit
//              operands the result may be in float (MatmulProblem::wide). Exception:
//              a lane of a register tile reads its bias an element at a time, up to 2.0x the
//              sectors of that one row.
// Every step is an explicit fma, so that no compiler may contract one path and not the other.
#pragma once

#include <cstdint>

#include "../activations.cuh"
#include "problem.hpp"
#include "tile.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// Calls use(f) with the formula of an activation; identity has none.
template <class Use>
__device__ inline void with_formula(const Activation& activation, const Use& use) {
  switch (activation.kind) {
    case ActivationKind::sigmoid:
      return use(Sigmoid{});
    case ActivationKind::tanh:
      return use(Tanh{});
    case ActivationKind::relu:
      return use(Relu{});
    case ActivationKind::leaky_relu:
      return use(LeakyRelu{activation.alpha});
    case ActivationKind::elu:
      return use(Elu{activation.alpha});
    case ActivationKind::selu:
      return use(Elu{kSeluAlpha, kSeluScale});
    case ActivationKind::gelu:
      return use(Gelu{});
    case ActivationKind::gelu_tanh:
      return use(GeluTanh{});
    case ActivationKind::silu:
      return use(Silu{});
    case ActivationKind::softplus:
      return use(Softplus{activation.alpha, activation.beta});
    case ActivationKind::mish:
      return use(Mish{});
    case ActivationKind::hardtanh:
      return use(Hardtanh{activation.alpha, activation.beta});
    case ActivationKind::relu6:
      return use(Hardtanh{0, 6});
    case ActivationKind::hardsigmoid:
      return use(Hardsigmoid{});
    case ActivationKind::hardswish:
      return use(Hardswish{});
    case ActivationKind::identity:
      break;
  }
}

template <class V>
__device__ inline V activate_here(const Activation& activation, V x) {
  V y = x;
  with_formula(activation, [&](const auto& f) { y = f.value(x); });
  return y;
}

// In double a call: inlined, the long formulas would cost every product registers.
[[gnu::noinline]] __device__ inline double activate_apart(Activation activation, double x) {
  return activate_here(activation, x);
}
template <class V>
__device__ inline V activate(const Activation& activation, V x) {
  if constexpr (sizeof(V) == sizeof(double)) {
    return activate_apart(activation, x);
  } else {
    return activate_here(activation, x);
  }
}

// Moves every element of an array in registers kStep places down, the first ones to the end. A loop
// that is not unrolled cannot index such an array, but it can work on the first elements and rotate
// until all have been there.
template <int kStep, int kCount, class V>
__device__ inline void rotate(V (&x)[kCount]) {
  static_assert(kCount % kStep == 0);
  V first[kStep];
#pragma unroll
  for (int e = 0; e < kStep; ++e) first[e] = x[e];
#pragma unroll
  for (int e = 0; e < kCount - kStep; ++e) x[e] = x[e + kStep];
#pragma unroll
  for (int e = 0; e < kStep; ++e) x[kCount - kStep + e] = first[e];
}

// The same for a row in registers, with few copies of the switch in the code.
template <int kCount, class V>
__device__ inline void activate_row(const Activation& activation, V (&x)[kCount]) {
  constexpr int kStep = kCount % 2 == 0 ? 2 : 1;
  if (activation.kind == ActivationKind::identity) return;
#pragma unroll 1
  for (int turn = 0; turn < kCount / kStep; ++turn) {
#pragma unroll
    for (int e = 0; e < kStep; ++e) x[e] = activate(activation, x[e]);
    rotate<kStep>(x);
  }
}

template <class T>
__device__ inline T* element(const Matrix<T>& c, int64_t batch, int64_t i, int64_t j) {
  return c.data + batch * c.batch_stride + i * c.row_stride + j;
}

// Calls body with the matrix that takes the result: c, or the one in float.
template <class T, class Body>
__device__ inline void with_result(const MatmulProblem<T>& problem, Body&& body) {
  if constexpr (sizeof(T) == 2) {
    if (problem.wide.data != nullptr) return body(problem.wide);
  }
  body(problem.c);
}

// z of one element; keeps it where the epilogue wants it.
template <class T>
__device__ inline Accumulate<T> finish_sum(const MatmulProblem<T>& problem, int64_t batch,
                                           int64_t i, int64_t j, Accumulate<T> sum) {
  using V = Accumulate<T>;
  // -0 and not 0: the number that changes nothing when it is added.
  const V bias = problem.epilogue.bias == nullptr ? V(-0.0) : widen(problem.epilogue.bias[j]);
  V z = fma(problem.alpha, sum, bias);
  if (problem.beta != V(0)) {
    with_result(problem,
                [&](const auto& c) { z = fma(problem.beta, widen(*element(c, batch, i, j)), z); });
  }
  if (problem.epilogue.preactivation != nullptr) {
    problem.epilogue.preactivation[(batch * problem.size.m + i) * problem.size.n + j] =
        narrow<T>(z);
  }
  return z;
}

// Finishes and stores element (batch, i, j), which must be inside c.
template <class T>
__device__ inline void store_element(const MatmulProblem<T>& problem, int64_t batch, int64_t i,
                                     int64_t j, Accumulate<T> sum) {
  const Accumulate<T> y =
      activate(problem.epilogue.activation, finish_sum(problem, batch, i, j, sum));
  with_result(problem,
              [&]<class Out>(const Matrix<Out>& c) { *element(c, batch, i, j) = narrow<Out>(y); });
}

// Stores the elements col + Cols::at(s) of a row of c, whose first one is `out`, kGroup at a time
// where its address allows.
template <class Cols, class Out>
__device__ inline void store_row(Out* out, int64_t left, const Accumulate<Out> (&y)[Cols::kCount]) {
  constexpr int kVector = Cols::kRun % kGroup<Out> == 0 ? kGroup<Out> : 1;
  const bool whole = reinterpret_cast<uintptr_t>(out) % sizeof(GroupBits<Out>) == 0;
#pragma unroll
  for (int s = 0; s < Cols::kCount; s += kVector) {
    Out value[kVector];
#pragma unroll
    for (int e = 0; e < kVector; ++e) value[e] = narrow<Out>(y[s + e]);
    if constexpr (kVector > 1) {
      if (whole && left - Cols::at(s) >= kVector) {
        store_group(out + Cols::at(s), value);
        continue;
      }
    }
#pragma unroll
    for (int e = 0; e < kVector; ++e) {
      if (e < left - Cols::at(s)) out[Cols::at(s) + e] = value[e];
    }
  }
}

// Finishes and stores the register tile (Rows::kCount, Cols::kCount) whose first element is (i, j);
// elements outside c are left out. One row a turn: a tile's worth of addresses would not fit in
// registers beside the tile.
template <class Rows, class Cols, class T>
__device__ inline void store_tile(const MatmulProblem<T>& problem, int64_t batch, int64_t i,
                                  int64_t j, Accumulate<T> (&sum)[Rows::kCount * Cols::kCount]) {
  const auto [unused, m, n, k] = problem.size;
#pragma unroll 1
  for (int r = 0; r < Rows::kCount; ++r, rotate<Cols::kCount>(sum)) {
    const int64_t row = i + Rows::at(r);
    if (row >= m) continue;
    Accumulate<T> z[Cols::kCount];
#pragma unroll
    for (int s = 0; s < Cols::kCount; ++s) {
      const int64_t col = j + Cols::at(s);
      z[s] = col < n ? finish_sum(problem, batch, row, col, sum[s]) : sum[s];
    }
    activate_row(problem.epilogue.activation, z);
    with_result(problem,
                [&](const auto& c) { store_row<Cols>(element(c, batch, row, j), n - j, z); });
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
