// SPDX-License-Identifier: MIT
// Bits and 16-bit floats: one instruction each on the device, plain C++ elsewhere.
// Source: PTX ISA, cvt; IEEE 754-2019, binary16.
#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cstdint>

namespace tilegrad::TILEGRAD_BACKEND {

__device__ inline float bits_to_float(uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  return std::bit_cast<float>(bits);
#endif
}

__device__ inline uint32_t float_to_bits(float x) {
#ifdef __CUDA_ARCH__
  return __float_as_uint(x);
#else
  return std::bit_cast<uint32_t>(x);
#endif
}

__device__ inline float half_to_float(uint16_t h) {
#ifdef __CUDA_ARCH__
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h));
  return x;
#else
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t rest = h & 0x7fffu;
  if (rest >= 0x7c00u) return bits_to_float(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  // Shifted into place the exponent is 112 too small; the product puts that right, and makes a
  // normal number of a subnormal one.
  const float magnitude = bits_to_float(rest << 13) * 0x1p112f;
  return bits_to_float(sign | float_to_bits(magnitude));
#endif
}

// Rounded to nearest, ties to even; beyond 65504 + 16 it becomes infinity.
__device__ inline uint16_t float_to_half(float x) {
#ifdef __CUDA_ARCH__
  uint16_t h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
  return h;
#else
  const uint32_t bits = float_to_bits(x);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const uint32_t rest = bits & 0x7fffffffu;
  if (rest > 0x7f800000u) return 0x7fff;  // the one NaN that the instruction gives
  if (rest >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (rest < 0x38800000u) {  // subnormal: an addition aligns and rounds the significand
    const float shifted = bits_to_float(rest) + 0.5f;
    return static_cast<uint16_t>(sign | (float_to_bits(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = rest + 0xfffu + (rest >> 13 & 1u);
  return static_cast<uint16_t>(sign | (rounded - 0x38000000u) >> 13);
#endif
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
// Two at once, each rounded as above (to nearest, ties to even); `low` in the low half. Elsewhere
// narrow_pair (numeric.cuh) rounds one after the other: the same bits, as every NaN that the
// device's arithmetic makes is the one whose bits are all set.
__device__ inline uint32_t floats_to_bf16x2(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
__device__ inline uint32_t floats_to_f16x2(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
#endif

}  // namespace tilegrad::TILEGRAD_BACKEND
