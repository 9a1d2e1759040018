// SPDX-License-Identifier: MIT
// What happens to an element of the product before it is stored, for every rung alike.
//
// Math:        z = alpha sum + bias[j] + beta c[i,j];  c[i,j] = f(z);  z may be kept. With a layer
//              below: c[i,j] = f(z) g'(saved[i,j]), where g is that layer's activation.
// Shapes:      sum is what a thread accumulated: one element, or a register tile of them.
// Parallelism: each thread finishes its own elements.
// Memory:      c is read only where beta is not 0. A register tile stores 16 bytes of Accumulate<T>
//              at a time where c's address and row stride allow; the bits are the same. Of 16-bit
//              operands the result may be in float (MatmulProblem::wide). Exception:
//              a lane of a register tile reads its bias an element at a time, up to 2.0x the
//              sectors of that one row.
// Every step is an explicit fma, so that no compiler may contract one path and not the other.
#pragma once

#include <algorithm>
#include <cstdint>

#include "activate.cuh"
#include "problem.hpp"
#include "tile.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

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
  Accumulate<T> y = activate(problem.epilogue.activation, finish_sum(problem, batch, i, j, sum));
  if (const LayerBelow<T>& below = problem.below; below.saved != nullptr) {
    const int64_t at = (batch * problem.size.m + i) * problem.size.n + j;
    y = differentiate(below.activation, below.saved_is_output, y, widen(below.saved[at]));
  }
  with_result(problem,
              [&]<class Out>(const Matrix<Out>& c) { *element(c, batch, i, j) = narrow<Out>(y); });
}

// Stores the elements Cols::at(s) < left of a row that begins at `out`, kGroup at a time where its
// address allows.
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
        store_group_global(out + Cols::at(s), value);
        continue;
      }
    }
#pragma unroll
    for (int e = 0; e < kVector; ++e) {
      if (e < left - Cols::at(s)) out[Cols::at(s) + e] = value[e];
    }
  }
}

// Multiplies a row's elements Cols::at(s) < left by the derivative of the layer below, saved from
// `from` on. A group a turn, and one copy of the switch: the caller's tile is in registers as well.
template <class Cols, class T>
__device__ inline void differentiate_row(const LayerBelow<T>& below, const T* from, int64_t left,
                                         Accumulate<T> (&y)[Cols::kCount]) {
  constexpr int kVector = Cols::kRun % kGroup<T> == 0 ? kGroup<T> : 1;
  const bool whole = reinterpret_cast<uintptr_t>(from) % sizeof(GroupBits<T>) == 0;
#pragma unroll 1
  for (int s = 0; s < Cols::kCount; s += kVector) {
    const T* const group = from + Cols::at(s);
    T saved[kVector] = {};
    bool loaded = false;
    if constexpr (kVector > 1) {
      loaded = whole && left - Cols::at(s) >= kVector;
      if (loaded) load_group(saved, group);
    }
    if (!loaded) {
#pragma unroll
      for (int e = 0; e < kVector; ++e) {
        if (e < left - Cols::at(s)) saved[e] = group[e];
      }
    }
#pragma unroll 1
    for (int e = 0; e < kVector; ++e) {
      y[0] = differentiate(below.activation, below.saved_is_output, y[0], widen(saved[0]));
      rotate<1>(y);
      rotate<1>(saved);
    }
  }
}

// Turns the sums of a row's elements j + Cols::at(s) into results; those outside c mean nothing.
template <class Cols, class T>
__device__ inline void finish_row(const MatmulProblem<T>& problem, int64_t batch, int64_t row,
                                  int64_t j, Accumulate<T> (&y)[Cols::kCount]) {
  const int64_t n = problem.size.n;
#pragma unroll
  for (int s = 0; s < Cols::kCount; ++s) {
    const int64_t col = j + Cols::at(s);
    if (col < n) y[s] = finish_sum(problem, batch, row, col, y[s]);
  }
  activate_row(problem.epilogue.activation, y);
  if (const LayerBelow<T>& below = problem.below; below.saved != nullptr) {
    differentiate_row<Cols>(below, below.saved + (batch * problem.size.m + row) * n + j, n - j, y);
  }
}

// Finishes and stores the register tile (Rows::kCount, Cols::kCount) whose first element is (i, j);
// elements outside c are left out. A run of neighbours a turn: a tile's worth of addresses would
// not fit in registers beside the tile.
template <class Rows, class Cols, class T>
__device__ inline void store_tile(const MatmulProblem<T>& problem, int64_t batch, int64_t i,
                                  int64_t j, Accumulate<T> (&sum)[Rows::kCount * Cols::kCount]) {
  constexpr int kRun = Cols::kRun % kGroup<T> == 0 ? kGroup<T> : Cols::kCount;
  using Run = ThreadAxis<kRun, std::min(kRun, Cols::kRun), Cols::kStep>;
#pragma unroll 1
  for (int e = 0; e < Rows::kCount * Cols::kCount; e += kRun, rotate<kRun>(sum)) {
    const int64_t row = i + Rows::at(e / Cols::kCount);
    const int64_t col = j + Cols::at(e % Cols::kCount);
    if (row >= problem.size.m || col >= problem.size.n) continue;
    Accumulate<T> y[kRun];
#pragma unroll
    for (int s = 0; s < kRun; ++s) y[s] = sum[s];
    finish_row<Run>(problem, batch, row, col, y);
    with_result(problem, [&](const auto& c) {
      store_row<Run>(element(c, batch, row, col), problem.size.n - col, y);
    });
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
