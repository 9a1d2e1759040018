// SPDX-License-Identifier: MIT
// Bits, 16-bit floats, a power of two: one instruction each on the device, plain C++ elsewhere.
// Source: PTX ISA, cvt and ex2; IEEE 754-2019, binary16.
#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cmath>
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

// Rounded to nearest, ties to even.
__device__ inline uint16_t float_to_bfloat(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint16_t h;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(x));
  return h;
#else
  const uint32_t bits = float_to_bits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;  // the one NaN that the instruction gives
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
#endif
}

// Two numbers rounded as above, as the halves of a word.
__device__ inline uint32_t floats_to_bfloats(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
#else
  return float_to_bfloat(low) | static_cast<uint32_t>(float_to_bfloat(high)) << 16;
#endif
}
__device__ inline uint32_t floats_to_halves(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32_t both;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
#else
  return float_to_half(low) | static_cast<uint32_t>(float_to_half(high)) << 16;
#endif
}

// 2^x, about two units in the last place; below the normal numbers it is zero.
__device__ inline float exp2_quick(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return x < -126.0f ? 0.0f : std::exp2f(x);
#endif
}

}  // namespace tilegrad::TILEGRAD_BACKEND
