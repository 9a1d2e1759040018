// SPDX-License-Identifier: MIT
//
// Vec<float> and Vec<double>: one hardware vector of the instruction set this file is compiled for.
//
// Every source in this folder is compiled once per instruction set ("recompilation as dispatch",
// after google/highway), with TILEGRAD_ISA = generic | avx2 | avx512, which is also the name of the
// namespace. Nothing here may end up outside that namespace: the linker could otherwise pick a copy
// compiled for AVX-512 to run on a machine without it. So use no std:: template in these sources.
//
// A formula written for V = Vec<T> reads as for a scalar: `0.5f * x * (1.0f + erf(x))`. Tails go
// through load_partial and store_partial, so that an element's bits do not depend on its position.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../../host_device.hpp"

#if !defined(TILEGRAD_ISA)
#error "compile simd sources with -DTILEGRAD_ISA=generic, avx2 or avx512"
#endif

#if defined(TILEGRAD_ISA_AVX512)
#include "native_avx512.hpp"
#elif defined(TILEGRAD_ISA_AVX2)
#include "native_avx2.hpp"
#else
#include "native_generic.hpp"
#endif

namespace tilegrad::cpu::TILEGRAD_ISA {

namespace native {
template <class T>
struct Types;
template <>
struct Types<float> {
  using Lanes = F32;
  using Int = I32;
  using MaskLanes = M32;
  static constexpr int32_t kSignBit = INT32_MIN;
};
template <>
struct Types<double> {
  using Lanes = F64;
  using Int = I64;
  using MaskLanes = M64;
  static constexpr int64_t kSignBit = INT64_MIN;
};
}  // namespace native

// One truth value per lane of V, made by comparing two V. Combine with & | ^ !, use in select().
template <class V>
struct Mask {
  using Native = typename native::Types<typename V::value_type>::MaskLanes;
  static constexpr unsigned kAllBits = (1u << V::kSize) - 1u;
  Native m;

  // True in lanes 0 .. n-1, for 0 <= n <= kSize.
  static TILEGRAD_INLINE Mask first(int n) {
    Mask r;
    native::first_lanes(n, r.m);
    return r;
  }
  friend TILEGRAD_INLINE Mask operator&(Mask a, Mask b) { return {static_cast<Native>(a.m & b.m)}; }
  friend TILEGRAD_INLINE Mask operator|(Mask a, Mask b) { return {static_cast<Native>(a.m | b.m)}; }
  friend TILEGRAD_INLINE Mask operator^(Mask a, Mask b) { return {static_cast<Native>(a.m ^ b.m)}; }
  friend TILEGRAD_INLINE Mask operator!(Mask a) { return {static_cast<Native>(~a.m)}; }
  // Lane i is bit i.
  friend TILEGRAD_INLINE unsigned bits(Mask a) { return native::bits(a.m) & kAllBits; }
  friend TILEGRAD_INLINE bool any(Mask a) { return bits(a) != 0; }
  friend TILEGRAD_INLINE bool all(Mask a) { return bits(a) == kAllBits; }
};

template <class T>
struct Vec {
  using value_type = T;
  using Native = typename native::Types<T>::Lanes;
  using Int = typename native::Types<T>::Int;  // same width, signed; has + - & | ^ << >> built in
  static constexpr int kSize = native::kVectorBytes / static_cast<int>(sizeof(T));
  Native v;

  Vec() = default;
  TILEGRAD_INLINE Vec(T scalar) : v(native::broadcast(scalar)) {}  // in every lane

  static TILEGRAD_INLINE Vec from_native(Native lanes) {
    Vec r;
    r.v = lanes;
    return r;
  }
  static TILEGRAD_INLINE Vec from_bits(Int lanes) { return from_native((Native)lanes); }
  TILEGRAD_INLINE Int to_bits() const { return (Int)v; }

  // No alignment is asked for.
  static TILEGRAD_INLINE Vec load(const T* p) {
    Vec r;
    __builtin_memcpy(&r.v, p, sizeof(Native));
    return r;
  }
  // Past the cache; p is a multiple of sizeof(Native).
  TILEGRAD_INLINE void stream(T* p) const { native::stream(p, v); }
  TILEGRAD_INLINE void store(T* p) const { __builtin_memcpy(p, &v, sizeof(Native)); }

  // The first n lanes, 0 <= n <= kSize; the others are `fill`. Memory from p + n on is not touched.
  static TILEGRAD_INLINE Vec load_partial(const T* p, int n, T fill = T(0)) {
    return from_native(native::load_partial(p, n, fill));
  }
  TILEGRAD_INLINE void store_partial(T* p, int n) const { native::store_partial(p, n, v); }

  TILEGRAD_INLINE T operator[](int lane) const { return v[lane]; }

  friend TILEGRAD_INLINE Vec operator+(Vec a, Vec b) { return from_native(a.v + b.v); }
  friend TILEGRAD_INLINE Vec operator-(Vec a, Vec b) { return from_native(a.v - b.v); }
  friend TILEGRAD_INLINE Vec operator*(Vec a, Vec b) { return from_native(a.v * b.v); }
  friend TILEGRAD_INLINE Vec operator/(Vec a, Vec b) { return from_native(a.v / b.v); }
  friend TILEGRAD_INLINE Vec operator-(Vec a) { return from_native(-a.v); }
  TILEGRAD_INLINE Vec& operator+=(Vec b) { return *this = *this + b; }
  TILEGRAD_INLINE Vec& operator-=(Vec b) { return *this = *this - b; }
  TILEGRAD_INLINE Vec& operator*=(Vec b) { return *this = *this * b; }
  TILEGRAD_INLINE Vec& operator/=(Vec b) { return *this = *this / b; }

  // IEEE comparisons: with a NaN only != is true.
  friend TILEGRAD_INLINE Mask<Vec> operator<(Vec a, Vec b) { return {native::less(a.v, b.v)}; }
  friend TILEGRAD_INLINE Mask<Vec> operator>(Vec a, Vec b) { return {native::less(b.v, a.v)}; }
  friend TILEGRAD_INLINE Mask<Vec> operator<=(Vec a, Vec b) {
    return {native::less_equal(a.v, b.v)};
  }
  friend TILEGRAD_INLINE Mask<Vec> operator>=(Vec a, Vec b) {
    return {native::less_equal(b.v, a.v)};
  }
  friend TILEGRAD_INLINE Mask<Vec> operator==(Vec a, Vec b) { return {native::equal(a.v, b.v)}; }
  friend TILEGRAD_INLINE Mask<Vec> operator!=(Vec a, Vec b) { return {native::unequal(a.v, b.v)}; }
  friend TILEGRAD_INLINE Mask<Vec> isnan(Vec a) { return a != a; }

  // m ? a : b, lane by lane.
  friend TILEGRAD_INLINE Vec select(Mask<Vec> m, Vec a, Vec b) {
    return from_native(native::blend(m.m, a.v, b.v));
  }
  // a * b + c, rounded once on avx2 and avx512, twice on generic.
  friend TILEGRAD_INLINE Vec fma(Vec a, Vec b, Vec c) {
    return from_native(native::fma(a.v, b.v, c.v));
  }
  friend TILEGRAD_INLINE Vec sqrt(Vec a) { return from_native(native::sqrt(a.v)); }
  // To the nearest integer, ties to even.
  friend TILEGRAD_INLINE Vec round(Vec a) { return from_native(native::round(a.v)); }
  // One instruction; b in lanes where either is NaN.
  friend TILEGRAD_INLINE Vec max_or_second(Vec a, Vec b) {
    return from_native(native::max_or_second(a.v, b.v));
  }
  // A NaN in either operand gives NaN (unlike ::fmax); of +0 and -0 either may come back.
  friend TILEGRAD_INLINE Vec max(Vec a, Vec b) { return from_native(native::max(a.v, b.v)); }
  friend TILEGRAD_INLINE Vec min(Vec a, Vec b) { return from_native(native::min(a.v, b.v)); }
  // a within [low, high]; a NaN in a stays NaN. The limits must not be NaN.
  friend TILEGRAD_INLINE Vec clamp(Vec a, Vec low, Vec high) {
    return from_native(native::clamp(a.v, low.v, high.v));
  }
  friend TILEGRAD_INLINE Vec abs(Vec a) {
    return from_bits(a.to_bits() & ~native::Types<T>::kSignBit);
  }
  friend TILEGRAD_INLINE Vec copysign(Vec magnitude, Vec sign) {
    return from_bits((magnitude.to_bits() & ~native::Types<T>::kSignBit) |
                     (sign.to_bits() & native::Types<T>::kSignBit));
  }

  // Over all lanes as a pairwise tree: lane i with lane i + kSize/2, then the halves again, down to
  // lane 0 with lane 1. reduce_max is NaN when any lane is.
  friend TILEGRAD_INLINE T reduce_add(Vec a) { return native::reduce_add(a.v); }
  friend TILEGRAD_INLINE T reduce_max(Vec a) { return native::reduce_max(a.v); }
};

}  // namespace tilegrad::cpu::TILEGRAD_ISA
