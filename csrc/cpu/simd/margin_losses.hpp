// SPDX-License-Identifier: MIT
// The margin losses' kernels that every ISA supplies: one row of n elements.
#pragma once

#include <cstdint>

namespace tilegrad::cpu {

// Each returns the loss of the row before it is weighted and divided by n, and writes `factor`
// times its gradient where that is not null.
template <class T>
struct MarginKernels {
  double (*multi_margin)(T* dx, const T* x, int64_t n, int64_t target, T margin, bool squared,
                         T factor);
  // `rest` has n elements of scratch memory.
  double (*multilabel_margin)(T* dx, T* rest, const T* x, int64_t n, const int64_t* listed,
                              int64_t count, T factor);
  double (*label_cross_entropy)(T* dx, T* dt, const T* x, const T* t, const T* weight, int64_t n,
                                T factor);
};

}  // namespace tilegrad::cpu
