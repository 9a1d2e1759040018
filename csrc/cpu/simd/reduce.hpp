// SPDX-License-Identifier: MIT
// Sums along an axis, in double: what every ISA supplies for sum_axis and for the losses.
#pragma once

#include <cstdint>

namespace tilegrad::cpu {

template <class T>
struct SumKernels {
  // totals[r] = sum_j x[r * row_stride + j], j < n
  void (*rows)(double* totals, const T* x, int64_t rows, int64_t n, int64_t row_stride);
  // totals[j] = sum_r x[r * row_stride + j], j < n
  void (*columns)(double* totals, const T* x, int64_t rows, int64_t n, int64_t row_stride);
};

}  // namespace tilegrad::cpu
