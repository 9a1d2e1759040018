// SPDX-License-Identifier: MIT
// Math: widen: the bits of y are those of x above 16 zeros. narrow: bits + 0x7fff + (last kept bit)
//   carries into the upper half exactly where the lower half is above its middle, or at it and the
//   upper half odd; from the largest number it carries into infinity.
// Shapes: runs of n elements.
// Parallelism: integer arithmetic on a vector of floats; the last few go through the same code.
// Memory: 6 bytes an element.
// Source: IEEE 754-2019, section 4.3.1, on the bits; no avx512_bf16, whose instruction makes zeros
//   of denormals.
#include "convert.hpp"

#include "../isa.hpp"
#include "vectors.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

using V = Vec<float>;
using Words [[gnu::vector_size(native::kVectorBytes)]] = uint32_t;
using Halves [[gnu::vector_size(native::kVectorBytes / 2)]] = uint16_t;

// __builtin_convertvector goes through the halves of a wider vector: several shuffles.
#if defined(TILEGRAD_ISA_AVX512)
TILEGRAD_INLINE Words zero_extended(Halves x) {
  return (Words)_mm512_maskz_cvtepu16_epi32(native::kAll32, (__m256i)x);
}
TILEGRAD_INLINE Halves truncated(Words x) {
  return (Halves)_mm512_maskz_cvtepi32_epi16(native::kAll32, (__m512i)x);
}
#else
TILEGRAD_INLINE Words zero_extended(Halves x) {
#if defined(TILEGRAD_ISA_AVX2)
  return (Words)_mm256_cvtepu16_epi32((__m128i)x);
#else
  return __builtin_convertvector(x, Words);
#endif
}
TILEGRAD_INLINE Halves truncated(Words x) { return __builtin_convertvector(x, Halves); }
#endif

TILEGRAD_INLINE V widened(Halves x) { return V::from_bits((V::Int)(zero_extended(x) << 16)); }

TILEGRAD_INLINE Halves narrowed(V x) {
  const Words bits = (Words)x.to_bits();
  const Words nearest = bits + 0x7fff + (bits >> 16 & 1);
  const V quiet = V::from_bits((V::Int)(bits | 0x400000));
  const V result = select(isnan(x), quiet, V::from_bits((V::Int)nearest));
  return truncated((Words)result.to_bits() >> 16);
}

// The first n elements of a vector: all of them, or fewer at the end of a run.
TILEGRAD_INLINE Halves load(const bfloat16* x, int64_t n) {
  Halves halves = {};
  __builtin_memcpy(&halves, x, static_cast<size_t>(n) * sizeof(bfloat16));
  return halves;
}
TILEGRAD_INLINE void store(bfloat16* y, int64_t n, Halves halves) {
  __builtin_memcpy(y, &halves, static_cast<size_t>(n) * sizeof(bfloat16));
}

void widen(float* y, const bfloat16* x, int64_t n) {
  for_vectors<V>(0, n, [=](int64_t i, int, auto access) {
    access.store(y + i, widened(load(x + i, access.n)));
  });
}

void narrow(bfloat16* y, const float* x, int64_t n) {
  for_vectors<V>(0, n, [=](int64_t i, int, auto access) {
    store(y + i, access.n, narrowed(access.load(x + i)));
  });
}

constexpr ConvertKernels kTable = {widen, narrow};

}  // namespace

template <>
const ConvertKernels& table() {
  return kTable;
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
