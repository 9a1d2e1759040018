// SPDX-License-Identifier: MIT
// The kernels that every ISA supplies for bfloat16, the upper half of a float.
#pragma once

#include <cstdint>

#include "../../context.hpp"

namespace tilegrad::cpu {

struct ConvertKernels {
  // Exact, but that a signalling NaN stays one.
  void (*widen)(float* y, const bfloat16* x, int64_t n);
  // To the nearest, ties to even; NaN becomes a quiet NaN.
  void (*narrow)(bfloat16* y, const float* x, int64_t n);
};

}  // namespace tilegrad::cpu
