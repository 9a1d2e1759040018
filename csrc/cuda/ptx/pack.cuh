// SPDX-License-Identifier: MIT
// Two floats as one pair of 16-bit floats, as convert.cuh rounds them, with 0 for what is below it.
// Source: PTX ISA, Data Movement and Conversion: cvt, .relu.
#pragma once

#include "convert.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define TILEGRAD_RELU(name, instruction)                                \
  __device__ inline uint32_t name(float low, float high) {              \
    uint32_t pair;                                                      \
    asm(instruction " %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low)); \
    return pair;                                                        \
  }
TILEGRAD_RELU(floats_to_bfloats_relu, "cvt.rn.relu.bf16x2.f32")
TILEGRAD_RELU(floats_to_halves_relu, "cvt.rn.relu.f16x2.f32")
#undef TILEGRAD_RELU
#else
__device__ inline float not_below_0(float x) { return x <= 0 ? 0.0f : x; }
__device__ inline uint32_t floats_to_bfloats_relu(float low, float high) {
  return floats_to_bfloats(not_below_0(low), not_below_0(high));
}
__device__ inline uint32_t floats_to_halves_relu(float low, float high) {
  return floats_to_halves(not_below_0(low), not_below_0(high));
}
#endif

}  // namespace tilegrad::TILEGRAD_BACKEND
