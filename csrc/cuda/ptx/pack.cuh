// SPDX-License-Identifier: MIT
// Two floats as one pair of 16-bit floats, the first in the low half, rounded to nearest, ties to
// even; a NaN becomes the one that the instruction gives. The _relu forms take 0 for what is below.
// Source: PTX ISA, Data Movement and Conversion: cvt.
#pragma once

#include <type_traits>

#include "../../context.hpp"
#include "convert.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define TILEGRAD_PACK(name, instruction)                                \
  __device__ inline uint32_t name(float low, float high) {              \
    uint32_t pair;                                                      \
    asm(instruction " %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low)); \
    return pair;                                                        \
  }
TILEGRAD_PACK(pack_bfloat16, "cvt.rn.bf16x2.f32")
TILEGRAD_PACK(pack_bfloat16_relu, "cvt.rn.relu.bf16x2.f32")
TILEGRAD_PACK(pack_float16, "cvt.rn.f16x2.f32")
TILEGRAD_PACK(pack_float16_relu, "cvt.rn.relu.f16x2.f32")
#undef TILEGRAD_PACK
#else
__device__ inline uint32_t bfloat16_bits(float x) {
  const uint32_t bits = float_to_bits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
  return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}
__device__ inline float not_below_0(float x) { return x <= 0 ? 0.0f : x; }
__device__ inline uint32_t pack_bfloat16(float low, float high) {
  return bfloat16_bits(low) | bfloat16_bits(high) << 16;
}
__device__ inline uint32_t pack_bfloat16_relu(float low, float high) {
  return pack_bfloat16(not_below_0(low), not_below_0(high));
}
__device__ inline uint32_t pack_float16(float low, float high) {
  return float_to_half(low) | static_cast<uint32_t>(float_to_half(high)) << 16;
}
__device__ inline uint32_t pack_float16_relu(float low, float high) {
  return pack_float16(not_below_0(low), not_below_0(high));
}
#endif

template <class T>
__device__ inline uint32_t pack(float low, float high) {
  if constexpr (std::is_same_v<T, bfloat16>) return pack_bfloat16(low, high);
  return pack_float16(low, high);
}
template <class T>
__device__ inline uint32_t pack_relu(float low, float high) {
  if constexpr (std::is_same_v<T, bfloat16>) return pack_bfloat16_relu(low, high);
  return pack_float16_relu(low, high);
}

}  // namespace tilegrad::TILEGRAD_BACKEND
