// SPDX-License-Identifier: MIT
// The elementwise losses' kernels that every ISA supplies.
#pragma once

#include <cstdint>

namespace tilegrad::cpu {

// A run of elements. Null: not wanted, or not given. The gradient of an element is its derivative
// times scale, times grad_output[i] where that is given.
template <class T>
struct LossRun {
  T* loss;
  T* dinput;
  T* dtarget;
  const T* grad_output;
  T scale;
  const T* input;
  const T* target;
  const T* weight;
  int64_t n;
};

template <class T>
struct LossKernels {
  // Returns the sum of the losses.
  double (*mse)(const LossRun<T>& run);
};

}  // namespace tilegrad::cpu
