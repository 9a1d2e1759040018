// SPDX-License-Identifier: MIT
//
// Math:        exp expm1 log log1p tanh of Vec<float>.
// Accuracy:    beside each function, on every instruction set, in ulp of the exact result, seen in
//              sweeps against the C library's double; results may be denormal; NaN gives NaN.
// Parallelism: one vector; an element's result does not depend on its lane.
// Source:      polynomials are minimax fits (Lawson's reweighted least squares on Chebyshev
//              points of 40-digit values), rounded to float32 one coefficient after the other from
//              the lowest, the rest fitted again each time; "fit 2^-k" is the relative error of the
//              function that remains. Reductions after W. J. Cody and W. Waite, "Software Manual
//              for the Elementary Functions", 1980. Constants are split so that the error also
//              holds where fma() rounds twice (the generic build).
#pragma once

#include "math_double.hpp"
#include "vec.hpp"
#if defined(TILEGRAD_ISA_AVX512)
#include "tables_avx512.hpp"
#endif

namespace tilegrad::cpu::TILEGRAD_ISA {

namespace detail {

using V = Vec<float>;

// ln 2 = kLn2High + kLn2Low; the high part has 9 bits, so its product with an exponent is exact.
inline constexpr float kLn2High = 0.693359375f;
inline constexpr float kLn2Low = -2.12194440e-4f;
inline constexpr float kInfinity = __builtin_inff();
inline constexpr float kNan = __builtin_nanf("");
// 1.5 * 2^23: adding it leaves an integer |n| < 2^22 in the low bits of the sum, rounded to even.
inline constexpr float kRoundShift = 12582912.0f;
inline constexpr int32_t kRoundShiftBits = 0x4B400000;
inline constexpr int32_t kSqrtHalfBits = 0x3F3504F3;
// Below this expm1(x) and log1p(x) are x to half an ulp; the formulas would lose the sign of -0.
inline constexpr float kLinear = 0x1p-24f;

// c0 + x (c1 + x (c2 + ...)).
TILEGRAD_INLINE V polynomial(V, float c) { return c; }
template <class... Rest>
TILEGRAD_INLINE V polynomial(V x, float c, Rest... rest) {
  return fma(x, polynomial(x, rest...), V(c));
}

TILEGRAD_INLINE V::Int to_int(V n) { return (n + kRoundShift).to_bits() - kRoundShiftBits; }
TILEGRAD_INLINE V to_float(V::Int n) { return V::from_bits(n + kRoundShiftBits) - kRoundShift; }
// Bits as numbers modulo 2^32: signed ones must not overflow.
using UInt [[gnu::vector_size(native::kVectorBytes)]] = uint32_t;
// How far the bits of x lie above those of sqrt(1/2): the exponent of x over [sqrt(1/2), sqrt(2))
// is this >> 23.
TILEGRAD_INLINE V::Int above_sqrt_half(V x) {
  return (V::Int)((UInt)x.to_bits() - static_cast<uint32_t>(kSqrtHalfBits));
}
// 2^n for -126 <= n <= 127.
TILEGRAD_INLINE V power_of_two(V::Int n) { return V::from_bits((n + 127) << 23); }

// a * 2^n for a near 1 and |n| < 250, rounded once: the first of two factors leaves it normal.
TILEGRAD_INLINE V scale(V a, V n) {
#if defined(TILEGRAD_ISA_AVX512)
  return V::from_native(native::scalef(a.v, n.v));
#else
  const V::Int exponent = to_int(n), half = exponent >> 1;
  return a * power_of_two(half) * power_of_two(exponent - half);
#endif
}

// With the limit as first operand a NaN in `a` stays, and no more than one instruction is needed.
TILEGRAD_INLINE V max_or_nan(V a, float low) { return V::from_native(native::max_limit(a.v, low)); }
TILEGRAD_INLINE V min_or_nan(V a, float high) {
  return V::from_native(native::min_limit(a.v, high));
}

struct ExpParts {
  V n;  // exp(x) = 2^n (1 + p), |p| < 0.42
  V p;
};

// exp(r) - 1. Fit 2^-28.2 on |r| <= 0.3476.
TILEGRAD_INLINE V expm1_small(V r) {
  const V q =
      polynomial(r, 0.49999994f, 0.166665211f, 0.0416682921f, 0.00836872123f, 0.0013818742f);
  return fma(r * r, q, r);
}

// Of |x| < 300.
TILEGRAD_INLINE ExpParts exp_parts(V x) {
  const V n = fma(x, V(1.44269504f), V(kRoundShift)) - kRoundShift;
  return {n, expm1_small(fma(n, V(-kLn2Low), fma(n, V(-kLn2High), x)))};
}

#if defined(TILEGRAD_ISA_AVX512)
// Rounds to a multiple of 1/16, whose low four bits become the lowest of the sum.
inline constexpr float kExpShift = kRoundShift / 16;

// exp(r + n ln 2) with shifted = n + kExpShift, |r| <= ln(2) / 32. Fit 2^-29.2.
TILEGRAD_INLINE V exp_reduced(V r, V shifted, V n) {
  const V t = V::from_native(native::lookup(native::load_table(kExp2), shifted.to_bits()));
  const V p = fma(r * r, fma(r, V(0.166670159f), V(0.50001663f)), r);
  return scale(fma(t, p, t), n);
}
TILEGRAD_INLINE V exp_reduced_quick(V r, V shifted, V n) { return exp_reduced(r, shifted, n); }
#else
inline constexpr float kExpShift = kRoundShift;

TILEGRAD_INLINE V exp_reduced_quick(V r, V shifted, V) {
  const V y = 1.0f + expm1_small(r);
  return V::from_bits((V::Int)((UInt)y.to_bits() + ((UInt)shifted.to_bits() << 23)));
}
TILEGRAD_INLINE V exp_reduced(V r, V shifted, V n) {
  // Where no result is NaN, infinite or denormal the exponent is added to its bits; the other way
  // gives the same there, so that no lane depends on another.
  if (__builtin_expect(all(abs(n) <= 100.0f), 1)) return exp_reduced_quick(r, shifted, n);
  return scale(1.0f + expm1_small(r), n);
}
#endif

// exp(x) by one of the above.
template <V kReduced(V, V, V)>
TILEGRAD_INLINE V exp_by(V x) {
  const V shifted = fma(x, V(1.44269504f), V(kExpShift)), n = shifted - kExpShift;
  return kReduced(fma(n, V(-kLn2Low), fma(n, V(-kLn2High), x)), shifted, n);
}
// exp(x) for -104.5 <= x <= 89, or NaN.
TILEGRAD_INLINE V exp_inside(V x) { return exp_by<exp_reduced>(x); }
// exp(x) for |x| <= 80; anything elsewhere.
TILEGRAD_INLINE V exp_quick(V x) { return exp_by<exp_reduced_quick>(x); }

// log(1 + f) + e ln 2 for -0.293 <= f <= 0.4143. Fit 2^-27.4.
TILEGRAD_INLINE V log_parts(V f, V e) {
  const V q = polynomial(f, -0.5f, 0.333333313f, -0.250008196f, 0.200012416f, -0.166234091f,
                         0.1420158f, -0.131596103f, 0.127622157f, -0.0763643533f);
  return fma(e, V(kLn2High), f + fma(f * f, q, e * kLn2Low));
}

// The logarithm's value where its argument `one_plus` is not positive and finite.
TILEGRAD_INLINE V log_special(V one_plus, V finite) {
  const V outside = select(one_plus < 0.0f, V(kNan), one_plus);  // NaN and +inf stay
  return select((one_plus > 0.0f) & (one_plus < kInfinity), finite,
                select(one_plus == 0.0f, V(-kInfinity), outside));
}

}  // namespace detail

// Within 1.1 ulp.
TILEGRAD_INLINE Vec<float> exp(Vec<float> x) {
  return detail::exp_inside(clamp(x, -104.5f, 89.0f));
}

// Within 1.7 ulp.
TILEGRAD_INLINE Vec<float> expm1(Vec<float> x) {
  using detail::V;
  const detail::ExpParts e = detail::exp_parts(clamp(x, -20.0f, 89.0f));
  // In halves, since 2^n overflows before the result does.
  const V half = detail::power_of_two(detail::to_int(e.n) - 1);
  const V sum = fma(e.p, half, half - 0.5f);
  return select(abs(x) < detail::kLinear, x, sum + sum);
}

// Within 1 ulp.
TILEGRAD_INLINE Vec<float> log(Vec<float> x) {
  using detail::V;
  const Mask<V> denormal = x < 0x1p-126f;
  const V scaled = select(denormal, x * 0x1p23f, x);
  const V::Int offset = detail::above_sqrt_half(scaled);
  const V m = V::from_bits((offset & 0x7FFFFF) + detail::kSqrtHalfBits);  // in [sqrt 1/2, sqrt 2)
  const V e = detail::to_float(offset >> 23) - select(denormal, V(23.0f), V(0.0f));
  return detail::log_special(x, detail::log_parts(m - 1.0f, e));
}

// Within 1.7 ulp.
TILEGRAD_INLINE Vec<float> log1p(Vec<float> x) {
  using detail::V;
  const V u = 1.0f + x;
  const V::Int e = detail::above_sqrt_half(u) >> 23;
  // f = (1 + x) / 2^e - 1 from x itself, since u is rounded. In quarters: 2^-e may be denormal.
  const V scale4 = detail::power_of_two(2 - e);
  const V f = fma(0.25f * x, scale4, 0.25f * scale4 - 1.0f);
  const V y = detail::log_special(u, detail::log_parts(f, detail::to_float(e)));
  return select(abs(x) < detail::kLinear, x, y);
}

#if defined(TILEGRAD_ISA_AVX512)
namespace detail {

// Row k of a table of 32 intervals, for the interval that the low five bits of `index` say.
TILEGRAD_INLINE V lookup(const float (&row)[32], V::Int index) {
  return V::from_native(
      native::lookup(native::load_table(row), native::load_table(row + 16), index));
}

// The polynomial in t whose coefficients are the rows from kFirst on.
template <int kFirst, int kRows>
TILEGRAD_INLINE V table_polynomial(const float (&table)[kRows][32], V::Int index, V t) {
  V y = lookup(table[kRows - 1], index);
#pragma GCC unroll 8
  for (int k = kRows - 2; k >= kFirst; --k) y = fma(t, y, lookup(table[k], index));
  return y;
}

// Of a table whose intervals are those of u = 1 + a, a >= 0, and whose first row are their points.
template <int kRows>
TILEGRAD_INLINE V piecewise(const float (&table)[kRows][32], V a) {
  const V::Int index = (1.0f + a).to_bits() >> 20;
  return table_polynomial<1>(table, index, a - lookup(table[0], index));
}

}  // namespace detail

// Within 1.4 ulp.
TILEGRAD_INLINE Vec<float> tanh(Vec<float> x) {
  return copysign(detail::piecewise(detail::kTanh, detail::min_or_nan(abs(x), 9.5f)), x);
}
#elif defined(TILEGRAD_ISA_AVX2)
// Within 4 ulp, at most 1. tanh(x/2) is m / (2 + 2 u), m and u polynomials of x, and tanh(x) by its
// double argument, which hardly feels an error where |tanh(x/2)| is near 1. Each is x or 1 and a
// small term near 0, so that few roundings count. Fit 2^-26.6 up to 9.02, where the value rounds
// to 1.
TILEGRAD_INLINE Vec<float> tanh(Vec<float> x) {
  x = clamp(x, -9.02f, 9.02f);
  const detail::V y = x * x;
  const detail::V m = fma(x, y * detail::polynomial(y, 0.0297693387f, 0.000114166985f), x);
  const detail::V u = y * detail::polynomial(y, 0.11310263f, 0.00120609475f, 1.22738368e-06f);
  const detail::V half = 0.5f * m;
  return fma(m, u, m) / (1.0f + fma(half, half, u * (u + 2.0f)));
}
#else
// Within 1.4 ulp. Below 0.625 an odd polynomial (fit 2^-27.7), above 1 - 2 / (exp(2x) + 1).
TILEGRAD_INLINE Vec<float> tanh(Vec<float> x) {
  using detail::V;
  const V a = abs(x), y = a * a;
  const V p = detail::polynomial(y, -0.333332807f, 0.133314058f, -0.0537365153f, 0.0206281673f,
                                 -0.00569229666f);
  const V large = 1.0f - 2.0f / (exp(a + a) + 1.0f);
  return copysign(select(a < 0.625f, fma(a * y, p, a), large), x);
}
#endif

}  // namespace tilegrad::cpu::TILEGRAD_ISA
