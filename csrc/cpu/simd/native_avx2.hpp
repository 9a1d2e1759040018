// SPDX-License-Identifier: MIT
//
// 32-byte vector primitives for AVX2 with FMA. Included by vec.hpp alone.
#pragma once

#include <immintrin.h>

namespace tilegrad::cpu::TILEGRAD_ISA::native {

inline constexpr int kVectorBytes = 32;

using F32 [[gnu::vector_size(32)]] = float;
using F64 [[gnu::vector_size(32)]] = double;
using I32 [[gnu::vector_size(32)]] = int32_t;
using I64 [[gnu::vector_size(32)]] = int64_t;
using M32 = I32;  // a mask is all ones or all zeros per lane
using M64 = I64;

TILEGRAD_INLINE F32 broadcast(float s) { return _mm256_set1_ps(s); }
TILEGRAD_INLINE F64 broadcast(double s) { return _mm256_set1_pd(s); }

TILEGRAD_INLINE F32 fma(F32 a, F32 b, F32 c) { return _mm256_fmadd_ps(a, b, c); }
TILEGRAD_INLINE F64 fma(F64 a, F64 b, F64 c) { return _mm256_fmadd_pd(a, b, c); }

// As the instruction has it: b where either is NaN.
TILEGRAD_INLINE F32 max_or_second(F32 a, F32 b) { return _mm256_max_ps(a, b); }
TILEGRAD_INLINE F64 max_or_second(F64 a, F64 b) { return _mm256_max_pd(a, b); }
// Past the cache, to an address that is a multiple of the vector's size.
TILEGRAD_INLINE void stream(float* p, F32 v) { _mm256_stream_ps(p, v); }
TILEGRAD_INLINE void stream(double* p, F64 v) { _mm256_stream_pd(p, v); }
// Before other threads may read what was streamed.
TILEGRAD_INLINE void finish_streams() { _mm_sfence(); }

TILEGRAD_INLINE F32 sqrt(F32 a) { return _mm256_sqrt_ps(a); }
TILEGRAD_INLINE F64 sqrt(F64 a) { return _mm256_sqrt_pd(a); }
TILEGRAD_INLINE F32 round(F32 a) {
  return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
TILEGRAD_INLINE F64 round(F64 a) {
  return _mm256_round_pd(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

TILEGRAD_INLINE F32 blend(M32 m, F32 a, F32 b) { return _mm256_blendv_ps(b, a, (__m256)m); }
TILEGRAD_INLINE F64 blend(M64 m, F64 a, F64 b) { return _mm256_blendv_pd(b, a, (__m256d)m); }
// vmaxps and vminps return the second operand when one is NaN, so only a NaN in `a` needs help.
TILEGRAD_INLINE F32 max(F32 a, F32 b) { return blend(a != a, a, _mm256_max_ps(a, b)); }
TILEGRAD_INLINE F64 max(F64 a, F64 b) { return blend(a != a, a, _mm256_max_pd(a, b)); }
TILEGRAD_INLINE F32 min(F32 a, F32 b) { return blend(a != a, a, _mm256_min_ps(a, b)); }
TILEGRAD_INLINE F64 min(F64 a, F64 b) { return blend(a != a, a, _mm256_min_pd(a, b)); }
// With the limits as first operands a NaN in `a` stays.
TILEGRAD_INLINE F32 clamp(F32 a, F32 low, F32 high) {
  return _mm256_max_ps(low, _mm256_min_ps(high, a));
}
TILEGRAD_INLINE F64 clamp(F64 a, F64 low, F64 high) {
  return _mm256_max_pd(low, _mm256_min_pd(high, a));
}

// One of the two limits of clamp().
TILEGRAD_INLINE F32 max_limit(F32 a, float low) { return _mm256_max_ps(broadcast(low), a); }
TILEGRAD_INLINE F32 min_limit(F32 a, float high) { return _mm256_min_ps(broadcast(high), a); }

TILEGRAD_INLINE M32 less(F32 a, F32 b) { return a < b; }
TILEGRAD_INLINE M64 less(F64 a, F64 b) { return a < b; }
TILEGRAD_INLINE M32 less_equal(F32 a, F32 b) { return a <= b; }
TILEGRAD_INLINE M64 less_equal(F64 a, F64 b) { return a <= b; }
TILEGRAD_INLINE M32 equal(F32 a, F32 b) { return a == b; }
TILEGRAD_INLINE M64 equal(F64 a, F64 b) { return a == b; }
TILEGRAD_INLINE M32 unequal(F32 a, F32 b) { return a != b; }
TILEGRAD_INLINE M64 unequal(F64 a, F64 b) { return a != b; }
TILEGRAD_INLINE unsigned bits(M32 m) {
  return static_cast<unsigned>(_mm256_movemask_ps((__m256)m));
}
TILEGRAD_INLINE unsigned bits(M64 m) {
  return static_cast<unsigned>(_mm256_movemask_pd((__m256d)m));
}

TILEGRAD_INLINE void first_lanes(int n, M32& m) { m = I32{0, 1, 2, 3, 4, 5, 6, 7} < n; }
TILEGRAD_INLINE void first_lanes(int n, M64& m) { m = I64{0, 1, 2, 3} < static_cast<int64_t>(n); }

TILEGRAD_INLINE F32 load_partial(const float* p, int n, float fill) {
  M32 m;
  first_lanes(n, m);
  return blend(m, _mm256_maskload_ps(p, (__m256i)m), broadcast(fill));
}
TILEGRAD_INLINE F64 load_partial(const double* p, int n, double fill) {
  M64 m;
  first_lanes(n, m);
  return blend(m, _mm256_maskload_pd(p, (__m256i)m), broadcast(fill));
}
TILEGRAD_INLINE void store_partial(float* p, int n, F32 v) {
  M32 m;
  first_lanes(n, m);
  _mm256_maskstore_ps(p, (__m256i)m, v);
}
TILEGRAD_INLINE void store_partial(double* p, int n, F64 v) {
  M64 m;
  first_lanes(n, m);
  _mm256_maskstore_pd(p, (__m256i)m, v);
}

TILEGRAD_INLINE float reduce_add(F32 v) {
  const __m128 x4 = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 x2 = _mm_add_ps(x4, _mm_movehl_ps(x4, x4));
  return _mm_cvtss_f32(_mm_add_ss(x2, _mm_movehdup_ps(x2)));
}
TILEGRAD_INLINE double reduce_add(F64 v) {
  const __m128d x2 = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
  return _mm_cvtsd_f64(_mm_add_sd(x2, _mm_unpackhi_pd(x2, x2)));
}
TILEGRAD_INLINE float reduce_max(F32 v) {
  v = max(v, _mm256_permute2f128_ps(v, v, 1));
  v = max(v, _mm256_permute_ps(v, 0b01001110));
  v = max(v, _mm256_movehdup_ps(v));
  return v[0];
}
TILEGRAD_INLINE double reduce_max(F64 v) {
  v = max(v, _mm256_permute2f128_pd(v, v, 1));
  v = max(v, _mm256_permute_pd(v, 0b0101));
  return v[0];
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA::native
