// SPDX-License-Identifier: MIT
//
// 64-byte vector primitives for AVX-512 (F, DQ, BW, VL). Included by vec.hpp alone. The maskz_
// forms with a full mask compile to the plain instruction; GCC 12 warns about the plain intrinsics,
// whose headers read an undefined register.
#pragma once

#include <immintrin.h>

namespace tilegrad::cpu::TILEGRAD_ISA::native {

inline constexpr int kVectorBytes = 64;

using F32 [[gnu::vector_size(64)]] = float;
using F64 [[gnu::vector_size(64)]] = double;
using I32 [[gnu::vector_size(64)]] = int32_t;
using I64 [[gnu::vector_size(64)]] = int64_t;
using M32 = __mmask16;
using M64 = __mmask8;

inline constexpr M32 kAll32 = 0xFFFF;
inline constexpr M64 kAll64 = 0xFF;

TILEGRAD_INLINE F32 broadcast(float s) { return _mm512_set1_ps(s); }
TILEGRAD_INLINE F64 broadcast(double s) { return _mm512_set1_pd(s); }

TILEGRAD_INLINE F32 fma(F32 a, F32 b, F32 c) { return _mm512_fmadd_ps(a, b, c); }
TILEGRAD_INLINE F64 fma(F64 a, F64 b, F64 c) { return _mm512_fmadd_pd(a, b, c); }

// As the instruction has it: b where either is NaN.
TILEGRAD_INLINE F32 max_or_second(F32 a, F32 b) { return _mm512_maskz_max_ps(kAll32, a, b); }
TILEGRAD_INLINE F64 max_or_second(F64 a, F64 b) { return _mm512_maskz_max_pd(kAll64, a, b); }
// Past the cache, to an address that is a multiple of the vector's size.
TILEGRAD_INLINE void stream(float* p, F32 v) { _mm512_stream_ps(p, v); }
TILEGRAD_INLINE void stream(double* p, F64 v) { _mm512_stream_pd(p, v); }
// Before other threads may read what was streamed.
TILEGRAD_INLINE void finish_streams() { _mm_sfence(); }

TILEGRAD_INLINE F32 sqrt(F32 a) { return _mm512_maskz_sqrt_ps(kAll32, a); }
TILEGRAD_INLINE F64 sqrt(F64 a) { return _mm512_maskz_sqrt_pd(kAll64, a); }
TILEGRAD_INLINE F32 round(F32 a) {
  return _mm512_maskz_roundscale_ps(kAll32, a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
TILEGRAD_INLINE F64 round(F64 a) {
  return _mm512_maskz_roundscale_pd(kAll64, a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// a * 2^n for integral n, rounded once, also into the denormals.
TILEGRAD_INLINE F32 scalef(F32 a, F32 n) { return _mm512_maskz_scalef_ps(kAll32, a, n); }
TILEGRAD_INLINE F64 scalef(F64 a, F64 n) { return _mm512_maskz_scalef_pd(kAll64, a, n); }

// A table of 16 or 32 entries in registers, read at the low 4 or 5 bits of each lane of `index`.
TILEGRAD_INLINE F32 load_table(const float* p) { return _mm512_loadu_ps(p); }
TILEGRAD_INLINE F32 lookup(F32 table, I32 index) {
  return _mm512_maskz_permutexvar_ps(kAll32, (__m512i)index, table);
}
TILEGRAD_INLINE F32 lookup(F32 low, F32 high, I32 index) {
  return _mm512_permutex2var_ps(low, (__m512i)index, high);
}

TILEGRAD_INLINE F32 blend(M32 m, F32 a, F32 b) { return _mm512_mask_blend_ps(m, b, a); }
TILEGRAD_INLINE F64 blend(M64 m, F64 a, F64 b) { return _mm512_mask_blend_pd(m, b, a); }

TILEGRAD_INLINE M32 less(F32 a, F32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
TILEGRAD_INLINE M64 less(F64 a, F64 b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
TILEGRAD_INLINE M32 less_equal(F32 a, F32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
TILEGRAD_INLINE M64 less_equal(F64 a, F64 b) { return _mm512_cmp_pd_mask(a, b, _CMP_LE_OQ); }
TILEGRAD_INLINE M32 equal(F32 a, F32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
TILEGRAD_INLINE M64 equal(F64 a, F64 b) { return _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ); }
TILEGRAD_INLINE M32 unequal(F32 a, F32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ); }
TILEGRAD_INLINE M64 unequal(F64 a, F64 b) { return _mm512_cmp_pd_mask(a, b, _CMP_NEQ_UQ); }
TILEGRAD_INLINE unsigned bits(M32 m) { return m; }
TILEGRAD_INLINE unsigned bits(M64 m) { return m; }

// vmaxps and vminps return the second operand when one is NaN, so only a NaN in `a` needs help:
// those lanes keep `a`.
TILEGRAD_INLINE F32 max(F32 a, F32 b) { return _mm512_mask_max_ps(a, equal(a, a), a, b); }
TILEGRAD_INLINE F64 max(F64 a, F64 b) { return _mm512_mask_max_pd(a, equal(a, a), a, b); }
TILEGRAD_INLINE F32 min(F32 a, F32 b) { return _mm512_mask_min_ps(a, equal(a, a), a, b); }
TILEGRAD_INLINE F64 min(F64 a, F64 b) { return _mm512_mask_min_pd(a, equal(a, a), a, b); }
// With the limits as first operands a NaN in `a` stays.
TILEGRAD_INLINE F32 clamp(F32 a, F32 low, F32 high) {
  return _mm512_maskz_max_ps(kAll32, low, _mm512_maskz_min_ps(kAll32, high, a));
}
TILEGRAD_INLINE F64 clamp(F64 a, F64 low, F64 high) {
  return _mm512_maskz_max_pd(kAll64, low, _mm512_maskz_min_pd(kAll64, high, a));
}

// One of the two limits of clamp().
TILEGRAD_INLINE F32 max_limit(F32 a, float low) {
  return _mm512_maskz_max_ps(kAll32, broadcast(low), a);
}
TILEGRAD_INLINE F32 min_limit(F32 a, float high) {
  return _mm512_maskz_min_ps(kAll32, broadcast(high), a);
}
TILEGRAD_INLINE M32 sign_bits(I32 a) { return _mm512_movepi32_mask((__m512i)a); }

TILEGRAD_INLINE void first_lanes(int n, M32& m) { m = static_cast<M32>((1u << n) - 1u); }
TILEGRAD_INLINE void first_lanes(int n, M64& m) { m = static_cast<M64>((1u << n) - 1u); }

TILEGRAD_INLINE F32 load_partial(const float* p, int n, float fill) {
  M32 m;
  first_lanes(n, m);
  return _mm512_mask_loadu_ps(broadcast(fill), m, p);
}
TILEGRAD_INLINE F64 load_partial(const double* p, int n, double fill) {
  M64 m;
  first_lanes(n, m);
  return _mm512_mask_loadu_pd(broadcast(fill), m, p);
}
TILEGRAD_INLINE void store_partial(float* p, int n, F32 v) {
  M32 m;
  first_lanes(n, m);
  _mm512_mask_storeu_ps(p, m, v);
}
TILEGRAD_INLINE void store_partial(double* p, int n, F64 v) {
  M64 m;
  first_lanes(n, m);
  _mm512_mask_storeu_pd(p, m, v);
}

// Lanes half a vector apart, then a quarter, an eighth ..: swap them and combine. Every lane ends
// up with the same value, since x + y = y + x.
TILEGRAD_INLINE F32 swap_halves(F32 v) { return _mm512_maskz_shuffle_f32x4(kAll32, v, v, 0x4E); }
TILEGRAD_INLINE F32 swap_quarters(F32 v) { return _mm512_maskz_shuffle_f32x4(kAll32, v, v, 0xB1); }
TILEGRAD_INLINE F32 swap_pairs(F32 v) { return _mm512_maskz_permute_ps(kAll32, v, 0x4E); }
TILEGRAD_INLINE F32 swap_lanes(F32 v) { return _mm512_maskz_permute_ps(kAll32, v, 0xB1); }
TILEGRAD_INLINE F64 swap_halves(F64 v) { return _mm512_maskz_shuffle_f64x2(kAll64, v, v, 0x4E); }
TILEGRAD_INLINE F64 swap_quarters(F64 v) { return _mm512_maskz_shuffle_f64x2(kAll64, v, v, 0xB1); }
TILEGRAD_INLINE F64 swap_lanes(F64 v) { return _mm512_maskz_permute_pd(kAll64, v, 0x55); }

TILEGRAD_INLINE float reduce_add(F32 v) {
  v += swap_halves(v);
  v += swap_quarters(v);
  v += swap_pairs(v);
  v += swap_lanes(v);
  return v[0];
}
TILEGRAD_INLINE double reduce_add(F64 v) {
  v += swap_halves(v);
  v += swap_quarters(v);
  v += swap_lanes(v);
  return v[0];
}
TILEGRAD_INLINE float reduce_max(F32 v) {
  v = max(v, swap_halves(v));
  v = max(v, swap_quarters(v));
  v = max(v, swap_pairs(v));
  v = max(v, swap_lanes(v));
  return v[0];
}
TILEGRAD_INLINE double reduce_max(F64 v) {
  v = max(v, swap_halves(v));
  v = max(v, swap_quarters(v));
  v = max(v, swap_lanes(v));
  return v[0];
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA::native
