// SPDX-License-Identifier: MIT
// Vectors of bfloat16, the upper half of a float: widening is exact, narrowing goes to the nearest,
// ties to even.
#pragma once

#include "../../context.hpp"
#include "vec.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {

using Words [[gnu::vector_size(native::kVectorBytes)]] = uint32_t;
using Halves [[gnu::vector_size(native::kVectorBytes / 2)]] = uint16_t;  // one for each word

// __builtin_convertvector goes through the halves of a wider vector: several shuffles.
#if defined(TILEGRAD_ISA_AVX512)
TILEGRAD_INLINE Words zero_extended(Halves x) {
  return (Words)_mm512_maskz_cvtepu16_epi32(native::kAll32, (__m256i)x);
}
TILEGRAD_INLINE Halves truncated(Words x) {
  return (Halves)_mm512_maskz_cvtepi32_epi16(native::kAll32, (__m512i)x);
}
#elif defined(TILEGRAD_ISA_AVX2)
TILEGRAD_INLINE Words zero_extended(Halves x) { return (Words)_mm256_cvtepu16_epi32((__m128i)x); }
TILEGRAD_INLINE Halves truncated(Words x) {
  const __m256i packed = _mm256_packus_epi32((__m256i)x, (__m256i)x);  // in each half of its own
  return (Halves)_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
}
#else
TILEGRAD_INLINE Words zero_extended(Halves x) { return __builtin_convertvector(x, Words); }
TILEGRAD_INLINE Halves truncated(Words x) { return __builtin_convertvector(x, Halves); }
#endif

TILEGRAD_INLINE Vec<float> as_float(Words bits) {
  return Vec<float>::from_bits((Vec<float>::Int)bits);
}
TILEGRAD_INLINE Vec<float> widened(Halves x) { return as_float(zero_extended(x) << 16); }

// Narrowed, each in the lower half of a word. NaN stays NaN: its quiet bit is set, else cutting
// could leave infinity.
TILEGRAD_INLINE Words rounded(Vec<float> x) {
  const Words bits = (Words)x.to_bits();
  const Words nearest = bits + 0x7fff + (bits >> 16 & 1);
  const Vec<float> kept = select(isnan(x), as_float(bits | 0x400000), as_float(nearest));
  return (Words)kept.to_bits() >> 16;
}
TILEGRAD_INLINE Halves narrowed(Vec<float> x) { return truncated(rounded(x)); }

// The first n elements, the others zero.
#if defined(TILEGRAD_ISA_AVX512)
TILEGRAD_INLINE Halves load_halves(const bfloat16* x, int64_t n) {
  return (Halves)_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1u), x);
}
TILEGRAD_INLINE void store_halves(bfloat16* y, int64_t n, Halves halves) {
  _mm256_mask_storeu_epi16(y, static_cast<__mmask16>((1u << n) - 1u), (__m256i)halves);
}
#else
TILEGRAD_INLINE Halves load_halves(const bfloat16* x, int64_t n) {
  Halves halves = {};
  __builtin_memcpy(&halves, x, static_cast<size_t>(n) * sizeof(bfloat16));
  return halves;
}
TILEGRAD_INLINE void store_halves(bfloat16* y, int64_t n, Halves halves) {
  __builtin_memcpy(y, &halves, static_cast<size_t>(n) * sizeof(bfloat16));
}
#endif
TILEGRAD_INLINE Halves load_halves(const bfloat16* x) {
  Halves halves;
  __builtin_memcpy(&halves, x, sizeof(Halves));
  return halves;
}
TILEGRAD_INLINE void store_halves(bfloat16* y, Halves halves) {
  __builtin_memcpy(y, &halves, sizeof(Halves));
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
