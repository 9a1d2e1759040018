// SPDX-License-Identifier: MIT
// The activation kernels that every ISA supplies. Contiguous runs of any length; an element's
// result depends on its value alone, so callers may split a run anywhere.
#pragma once

#include <cstdint>

#include "../../ops.hpp"

namespace tilegrad::cpu {

template <class T>
struct ActivationKernels {
  // y = f(x); y may be x.
  void (*forward)(T* y, const T* x, int64_t n, Activation f);
  // dx = dy * f'; saved is f's argument, or its result where saved_is_output.
  void (*backward)(T* dx, const T* dy, const T* saved, bool saved_is_output, int64_t n,
                   Activation f);
  // row = f(row + bias): the epilogue of a product. bias and preactivation may be null; the
  // preactivation receives row + bias.
  void (*bias_forward)(T* row, T* preactivation, const T* bias, int64_t n, Activation f);
  // y = x past the caches; y starts a cache line. Other threads may see y after a call with n = 0.
  void (*stream)(T* y, const T* x, int64_t n);
};

}  // namespace tilegrad::cpu
