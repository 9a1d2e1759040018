// SPDX-License-Identifier: MIT
// Dropout with its mask drawn in place.
//
// Math:        y_i = x_i s where word_i >= threshold, else x_i 0 (as torch: a dropped NaN or inf
//              is NaN). word_i is word i mod 4 of Philox counter c + i/4.
// Parallelism: a 64-bit lane holds one word of one counter, its upper half is never looked at: the
//              hardware's 32 x 32 -> 64 product ignores it, so a round is two products, two shifts
//              and four xors for kLanes counters. Two groups run side by side to hide latency.
// Memory:      reads x, writes y; words pass through a buffer of 1 KiB.
// Source:      Salmon et al. (SC11); see philox.hpp.
#include "dropout.hpp"

#include "../isa.hpp"
#include "vec.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

constexpr int kLanes = native::kVectorBytes / 8;  // counters a vector
constexpr int kGroups = 2;
constexpr int kWords = 256;  // in the buffer: kWords / 4 counters
static_assert(kWords % (4 * kLanes * kGroups) == 0);

using U64 [[gnu::vector_size(native::kVectorBytes)]] = uint64_t;
using U32 [[gnu::vector_size(native::kVectorBytes)]] = uint32_t;
using HalfU32 [[gnu::vector_size(native::kVectorBytes / 2)]] = uint32_t;

// multiply_low: the product of the lower halves. interleave_even, _odd: lanes 0, 2, .. of both in
// turn, lanes 1, 3, .. lane_counters: even lanes take the first half of a group's counters and odd
// lanes the second, so that interleaving pairs of words leaves the words in memory order.
#if defined(TILEGRAD_ISA_AVX512)
TILEGRAD_INLINE U64 multiply_low(U64 a, U64 b) {
  return (U64)_mm512_maskz_mul_epu32(native::kAll64, (__m512i)a, (__m512i)b);
}
TILEGRAD_INLINE U64 interleave_even(U64 a, U64 b) {
  return (U64)_mm512_maskz_unpacklo_epi64(native::kAll64, (__m512i)a, (__m512i)b);
}
TILEGRAD_INLINE U64 interleave_odd(U64 a, U64 b) {
  return (U64)_mm512_maskz_unpackhi_epi64(native::kAll64, (__m512i)a, (__m512i)b);
}
TILEGRAD_INLINE U64 lane_counters() { return U64{0, 4, 1, 5, 2, 6, 3, 7}; }
#elif defined(TILEGRAD_ISA_AVX2)
TILEGRAD_INLINE U64 multiply_low(U64 a, U64 b) {
  return (U64)_mm256_mul_epu32((__m256i)a, (__m256i)b);
}
TILEGRAD_INLINE U64 interleave_even(U64 a, U64 b) {
  return (U64)_mm256_unpacklo_epi64((__m256i)a, (__m256i)b);
}
TILEGRAD_INLINE U64 interleave_odd(U64 a, U64 b) {
  return (U64)_mm256_unpackhi_epi64((__m256i)a, (__m256i)b);
}
TILEGRAD_INLINE U64 lane_counters() { return U64{0, 2, 1, 3}; }
#else
TILEGRAD_INLINE U64 multiply_low(U64 a, U64 b) {
#if defined(__SSE4_1__)
  return (U64)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
}
TILEGRAD_INLINE U64 interleave_even(U64 a, U64 b) { return U64{a[0], b[0]}; }
TILEGRAD_INLINE U64 interleave_odd(U64 a, U64 b) { return U64{a[1], b[1]}; }
TILEGRAD_INLINE U64 lane_counters() { return U64{0, 1}; }
#endif

// The words of kLanes * kGroups counters, in order.
TILEGRAD_INLINE void draw(uint32_t* words, uint64_t seed, uint64_t counter) {
  U64 c0[kGroups], c1[kGroups], c2[kGroups], c3[kGroups];
#pragma GCC unroll 2
  for (int g = 0; g < kGroups; ++g) {
    c0[g] = counter + static_cast<uint64_t>(g * kLanes) + lane_counters();
    c1[g] = c0[g] >> 32;
    c2[g] = c3[g] = U64{};
  }
  const U64 m0 = U64{} + kPhiloxM0;
  const U64 m1 = U64{} + kPhiloxM1;
  auto k0 = static_cast<uint32_t>(seed);
  auto k1 = static_cast<uint32_t>(seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < kPhiloxRounds; ++round) {
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) {
      const U64 p0 = multiply_low(c0[g], m0);
      const U64 p1 = multiply_low(c2[g], m1);
      c0[g] = (p1 >> 32) ^ c1[g] ^ uint64_t { k0 };
      c1[g] = p1;
      c2[g] = (p0 >> 32) ^ c3[g] ^ uint64_t { k1 };
      c3[g] = p0;
    }
    k0 += kPhiloxW0;
    k1 += kPhiloxW1;
  }
#pragma GCC unroll 2
  for (int g = 0; g < kGroups; ++g) {
    const U64 first = (c0[g] & 0xFFFFFFFFu) | (c1[g] << 32);
    const U64 second = (c2[g] & 0xFFFFFFFFu) | (c3[g] << 32);
    const U64 even = interleave_even(first, second);
    const U64 odd = interleave_odd(first, second);
    __builtin_memcpy(words + 4 * kLanes * g, &even, sizeof(even));
    __builtin_memcpy(words + 4 * kLanes * g + 2 * kLanes, &odd, sizeof(odd));
  }
}

// What x is multiplied by in the lanes of one vector.
TILEGRAD_INLINE Vec<float> factor(const uint32_t* words, DropoutRule<float> rule) {
  U32 word;
  __builtin_memcpy(&word, words, sizeof(word));
  return Vec<float>::from_bits((native::I32)(word >= rule.threshold) &
                               Vec<float>(rule.scale).to_bits());
}
TILEGRAD_INLINE Vec<double> factor(const uint32_t* words, DropoutRule<double> rule) {
  HalfU32 word;
  __builtin_memcpy(&word, words, sizeof(word));
  const U64 wide = __builtin_convertvector(word, U64);
  return Vec<double>::from_bits((native::I64)(wide >= uint64_t{rule.threshold}) &
                                Vec<double>(rule.scale).to_bits());
}

template <class T>
void dropout_kernel(T* y, const T* x, int64_t n, DropoutRule<T> rule, uint64_t seed,
                    uint64_t counter) {
  using V = Vec<T>;
  alignas(64) uint32_t words[kWords];
  for (int64_t begin = 0; begin < n; begin += kWords, counter += kWords / 4) {
    const int count = n - begin < kWords ? static_cast<int>(n - begin) : kWords;
    for (int i = 0; i < count; i += 4 * kLanes * kGroups) {
      draw(words + i, seed, counter + static_cast<uint64_t>(i / 4));
    }
    const T* from = x + begin;
    T* to = y + begin;
    int i = 0;
    for (; i + V::kSize <= count; i += V::kSize) {
      (V::load(from + i) * factor(words + i, rule)).store(to + i);
    }
    if (i < count) {
      const V v = V::load_partial(from + i, count - i) * factor(words + i, rule);
      v.store_partial(to + i, count - i);
    }
  }
}

constexpr DropoutKernels<float> kFloat = {dropout_kernel<float>};
constexpr DropoutKernels<double> kDouble = {dropout_kernel<double>};

}  // namespace

template <>
const DropoutKernels<float>& table() {
  return kFloat;
}
template <>
const DropoutKernels<double>& table() {
  return kDouble;
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
