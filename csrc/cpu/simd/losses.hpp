// SPDX-License-Identifier: MIT
// The elementwise losses' kernels that every ISA supplies.
#pragma once

#include <cstdint>

#include "../../ops.hpp"

namespace tilegrad::cpu {

// A run of elements. Null: not wanted, or not given. The gradient of an element is its derivative
// times scale, times grad_output[i] where that is given.
template <class T>
struct LossRun {
  T* loss;
  T* gradients[3];
  const T* grad_output;
  T scale;
  const T *a, *b, *c;
  const T* weight;
  int64_t n;
  bool sum;  // of the losses
};

template <class T>
struct Range {
  T low, high;
  bool has_nan;  // NaN is in it too
};

template <class T>
struct LossKernels {
  // Returns the sum of the losses where that is asked for.
  double (*run)(const LossFunction& loss, const LossRun<T>& run);
  // Whether every element is in the range.
  bool (*inside)(const T* x, int64_t n, Range<T> range);
};

}  // namespace tilegrad::cpu
