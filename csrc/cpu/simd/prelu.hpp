// SPDX-License-Identifier: MIT
// The prelu kernels that every ISA supplies: runs of elements that share a slope, or have one each.
#pragma once

#include <cstdint>

namespace tilegrad::cpu {

template <class T>
struct PreluKernels {
  // y = x where x > 0, else slope x. slope_step is 0 (one for all) or 1. y may be x.
  void (*forward)(T* y, const T* x, const T* slope, int slope_step, int64_t n);
  // dx = dy where x > 0, else slope dy; terms = 0 where x > 0, else x dy, the slope's gradient
  // before it is summed. Either may be null. dx may be dy or x.
  void (*backward)(T* dx, T* terms, const T* dy, const T* x, const T* slope, int slope_step,
                   int64_t n);
};

}  // namespace tilegrad::cpu
