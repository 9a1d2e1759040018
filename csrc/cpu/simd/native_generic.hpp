// SPDX-License-Identifier: MIT
//
// 16-byte vector primitives from the compiler's vector extensions, for any CPU; SSE4 (part of
// x86-64-v2) only where the extension would produce scalar code. Included by vec.hpp alone.
// There is no fused multiply-add here: fma(a, b, c) rounds twice.
#pragma once

#if defined(__SSE4_1__)
#include <immintrin.h>
#endif

namespace tilegrad::cpu::TILEGRAD_ISA::native {

inline constexpr int kVectorBytes = 16;

using F32 [[gnu::vector_size(16)]] = float;
using F64 [[gnu::vector_size(16)]] = double;
using I32 [[gnu::vector_size(16)]] = int32_t;
using I64 [[gnu::vector_size(16)]] = int64_t;
using M32 = I32;  // a mask is all ones or all zeros per lane
using M64 = I64;

TILEGRAD_INLINE F32 broadcast(float s) { return F32{s, s, s, s}; }
TILEGRAD_INLINE F64 broadcast(double s) { return F64{s, s}; }

TILEGRAD_INLINE F32 fma(F32 a, F32 b, F32 c) { return a * b + c; }
TILEGRAD_INLINE F64 fma(F64 a, F64 b, F64 c) { return a * b + c; }

#if defined(__SSE4_1__)
// As the instruction has it: b where either is NaN.
TILEGRAD_INLINE F32 max_or_second(F32 a, F32 b) { return _mm_max_ps(a, b); }
TILEGRAD_INLINE F64 max_or_second(F64 a, F64 b) { return _mm_max_pd(a, b); }
TILEGRAD_INLINE F32 sqrt(F32 a) { return _mm_sqrt_ps(a); }
TILEGRAD_INLINE F64 sqrt(F64 a) { return _mm_sqrt_pd(a); }
TILEGRAD_INLINE F32 round(F32 a) {
  return _mm_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
TILEGRAD_INLINE F64 round(F64 a) {
  return _mm_round_pd(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
TILEGRAD_INLINE F32 blend(M32 m, F32 a, F32 b) { return _mm_blendv_ps(b, a, (__m128)m); }
TILEGRAD_INLINE F64 blend(M64 m, F64 a, F64 b) { return _mm_blendv_pd(b, a, (__m128d)m); }
// maxps and minps return the second operand when one is NaN, so only a NaN in `a` needs help.
TILEGRAD_INLINE F32 max(F32 a, F32 b) { return blend(a != a, a, _mm_max_ps(a, b)); }
TILEGRAD_INLINE F64 max(F64 a, F64 b) { return blend(a != a, a, _mm_max_pd(a, b)); }
TILEGRAD_INLINE F32 min(F32 a, F32 b) { return blend(a != a, a, _mm_min_ps(a, b)); }
TILEGRAD_INLINE F64 min(F64 a, F64 b) { return blend(a != a, a, _mm_min_pd(a, b)); }
// With the limits as first operands a NaN in `a` stays.
TILEGRAD_INLINE F32 clamp(F32 a, F32 low, F32 high) { return _mm_max_ps(low, _mm_min_ps(high, a)); }
TILEGRAD_INLINE F64 clamp(F64 a, F64 low, F64 high) { return _mm_max_pd(low, _mm_min_pd(high, a)); }
TILEGRAD_INLINE unsigned bits(M32 m) { return static_cast<unsigned>(_mm_movemask_ps((__m128)m)); }
TILEGRAD_INLINE unsigned bits(M64 m) { return static_cast<unsigned>(_mm_movemask_pd((__m128d)m)); }
#else
TILEGRAD_INLINE F32 max_or_second(F32 a, F32 b) { return a > b ? a : b; }
TILEGRAD_INLINE F64 max_or_second(F64 a, F64 b) { return a > b ? a : b; }
TILEGRAD_INLINE F32 sqrt(F32 a) {
  return F32{__builtin_sqrtf(a[0]), __builtin_sqrtf(a[1]), __builtin_sqrtf(a[2]),
             __builtin_sqrtf(a[3])};
}
TILEGRAD_INLINE F64 sqrt(F64 a) { return F64{__builtin_sqrt(a[0]), __builtin_sqrt(a[1])}; }
TILEGRAD_INLINE F32 round(F32 a) {
  return F32{__builtin_rintf(a[0]), __builtin_rintf(a[1]), __builtin_rintf(a[2]),
             __builtin_rintf(a[3])};
}
TILEGRAD_INLINE F64 round(F64 a) { return F64{__builtin_rint(a[0]), __builtin_rint(a[1])}; }
TILEGRAD_INLINE F32 blend(M32 m, F32 a, F32 b) { return (F32)((m & (I32)a) | (~m & (I32)b)); }
TILEGRAD_INLINE F64 blend(M64 m, F64 a, F64 b) { return (F64)((m & (I64)a) | (~m & (I64)b)); }
TILEGRAD_INLINE F32 max(F32 a, F32 b) { return blend((a > b) | (a != a), a, b); }
TILEGRAD_INLINE F64 max(F64 a, F64 b) { return blend((a > b) | (a != a), a, b); }
TILEGRAD_INLINE F32 min(F32 a, F32 b) { return blend((a < b) | (a != a), a, b); }
TILEGRAD_INLINE F64 min(F64 a, F64 b) { return blend((a < b) | (a != a), a, b); }
TILEGRAD_INLINE F32 clamp(F32 a, F32 low, F32 high) {
  return blend(a < low, low, blend(a > high, high, a));
}
TILEGRAD_INLINE F64 clamp(F64 a, F64 low, F64 high) {
  return blend(a < low, low, blend(a > high, high, a));
}
TILEGRAD_INLINE unsigned bits(M32 m) {
  return static_cast<unsigned>((m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8));
}
TILEGRAD_INLINE unsigned bits(M64 m) { return static_cast<unsigned>((m[0] & 1) | (m[1] & 2)); }
#endif

// One of the two limits of clamp().
TILEGRAD_INLINE F32 max_limit(F32 a, float low) {
  return blend(a < broadcast(low), broadcast(low), a);
}
TILEGRAD_INLINE F32 min_limit(F32 a, float high) {
  return blend(a > broadcast(high), broadcast(high), a);
}

TILEGRAD_INLINE M32 less(F32 a, F32 b) { return a < b; }
TILEGRAD_INLINE M64 less(F64 a, F64 b) { return a < b; }
TILEGRAD_INLINE M32 less_equal(F32 a, F32 b) { return a <= b; }
TILEGRAD_INLINE M64 less_equal(F64 a, F64 b) { return a <= b; }
TILEGRAD_INLINE M32 equal(F32 a, F32 b) { return a == b; }
TILEGRAD_INLINE M64 equal(F64 a, F64 b) { return a == b; }
TILEGRAD_INLINE M32 unequal(F32 a, F32 b) { return a != b; }
TILEGRAD_INLINE M64 unequal(F64 a, F64 b) { return a != b; }

TILEGRAD_INLINE void first_lanes(int n, M32& m) { m = I32{0, 1, 2, 3} < n; }
TILEGRAD_INLINE void first_lanes(int n, M64& m) { m = I64{0, 1} < static_cast<int64_t>(n); }

TILEGRAD_INLINE F32 load_partial(const float* p, int n, float fill) {
  F32 v = broadcast(fill);
  __builtin_memcpy(&v, p, static_cast<size_t>(n) * sizeof(float));
  return v;
}
TILEGRAD_INLINE F64 load_partial(const double* p, int n, double fill) {
  F64 v = broadcast(fill);
  __builtin_memcpy(&v, p, static_cast<size_t>(n) * sizeof(double));
  return v;
}
TILEGRAD_INLINE void store_partial(float* p, int n, F32 v) {
  __builtin_memcpy(p, &v, static_cast<size_t>(n) * sizeof(float));
}
TILEGRAD_INLINE void store_partial(double* p, int n, F64 v) {
  __builtin_memcpy(p, &v, static_cast<size_t>(n) * sizeof(double));
}

// To memory past the caches where there is such a store; p is aligned to the vector.
#if defined(__SSE4_1__)
TILEGRAD_INLINE void stream(float* p, F32 v) { _mm_stream_ps(p, v); }
TILEGRAD_INLINE void stream(double* p, F64 v) { _mm_stream_pd(p, v); }
TILEGRAD_INLINE void finish_streams() { _mm_sfence(); }
#else
TILEGRAD_INLINE void stream(float* p, F32 v) { __builtin_memcpy(p, &v, sizeof(v)); }
TILEGRAD_INLINE void stream(double* p, F64 v) { __builtin_memcpy(p, &v, sizeof(v)); }
TILEGRAD_INLINE void finish_streams() {}
#endif

TILEGRAD_INLINE float reduce_add(F32 v) { return (v[0] + v[2]) + (v[1] + v[3]); }
TILEGRAD_INLINE double reduce_add(F64 v) { return v[0] + v[1]; }
TILEGRAD_INLINE float reduce_max(F32 v) {
  const F32 halves = max(v, F32{v[2], v[3], v[2], v[3]});
  return max(halves, broadcast(halves[1]))[0];
}
TILEGRAD_INLINE double reduce_max(F64 v) { return max(v, broadcast(v[1]))[0]; }

}  // namespace tilegrad::cpu::TILEGRAD_ISA::native
