// SPDX-License-Identifier: MIT
//
// Math:        the functions of math.hpp for Vec<double>: exp expm1 tanh in vectors; log log1p erf
//              erfc are the C library's, lane by lane, so within its 1 ulp.
// Accuracy:    beside each function, in ulp, seen in sweeps against the C library's long double.
// Parallelism: one vector; an element's result does not depend on its lane.
// Source:      reduction by n ln 2 after Cody and Waite; Taylor's series to r^13, whose remainder
//              for |r| <= ln(2)/2 is 2^-57.
#pragma once

#include <math.h>

#include "vec.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {

template <double (*kFunction)(double)>
TILEGRAD_INLINE Vec<double> per_lane(Vec<double> x) {
  double lanes[Vec<double>::kSize];
  x.store(lanes);
  for (double& lane : lanes) lane = kFunction(lane);
  return Vec<double>::load(lanes);
}

namespace detail {

// Adding it leaves an integer in the low bits.
inline constexpr double kShift64 = 0x1.8p52;

// Where 2^n is normal. `shifted` is n + kShift64.
TILEGRAD_INLINE Vec<double> power_of_two(Vec<double> shifted) {
  using D = Vec<double>;
  return D::from_bits(((shifted.to_bits() - D(kShift64).to_bits()) << 52) + D(1.0).to_bits());
}

struct ExpParts64 {
  Vec<double> n, p;  // exp(x) = 2^n (1 + p), |p| < 0.42
};

// Of |x| < 1000.
TILEGRAD_INLINE ExpParts64 exp_parts(Vec<double> x) {
  using D = Vec<double>;
  const D n = fma(x, D(1.4426950408889634), D(kShift64)) - kShift64;
  // ln 2 in two parts, the first with 32 bits, so that its product with n is exact.
  const D r = fma(n, D(-1.9082149292705877e-10), fma(n, D(-0x1.62e42feep-1), x));
  // 1/k!, in pairs: two short chains are faster than one long.
  const D s = r * r;
  constexpr double c[] = {1.0 / 2,       1.0 / 6,        1.0 / 24,        1.0 / 120,
                          1.0 / 720,     1.0 / 5040,     1.0 / 40320,     1.0 / 362880,
                          1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
  D q = fma(r, D(c[11]), D(c[10]));
#pragma GCC unroll 8
  for (int k = 8; k >= 0; k -= 2) q = fma(s, q, fma(r, D(c[k + 1]), D(c[k])));
  return {n, fma(s, q, r)};
}

// exp(x) for -746 <= x <= 710, or NaN.
TILEGRAD_INLINE Vec<double> exp_inside(Vec<double> x) {
  const ExpParts64 e = exp_parts(x);
  const Vec<double> y = 1.0 + e.p;
#if defined(TILEGRAD_ISA_AVX512)
  return Vec<double>::from_native(native::scalef(y.v, e.n.v));
#else
  // In two factors: 2^n may be denormal or infinite where the result is not.
  const Vec<double> half = (e.n * 0.5 + kShift64) - kShift64;
  return y * power_of_two(half + kShift64) * power_of_two((e.n - half) + kShift64);
#endif
}

}  // namespace detail

// Within 1 ulp, 2 on generic.
TILEGRAD_INLINE Vec<double> exp(Vec<double> x) {
  return detail::exp_inside(clamp(x, -746.0, 710.0));
}

// Within 1.7 ulp.
TILEGRAD_INLINE Vec<double> expm1(Vec<double> x) {
  const detail::ExpParts64 e = detail::exp_parts(clamp(x, -40.0, 710.0));
  // In halves, since 2^n overflows before the result does.
  const Vec<double> half = detail::power_of_two((e.n - 1.0) + detail::kShift64);
  const Vec<double> sum = fma(e.p, half, half - 0.5);
  return select(abs(x) < 0x1p-54, x, sum + sum);
}

// Within 3 ulp. -m / (2 + m) with m = expm1(-2 |x|), in [-1, 0].
TILEGRAD_INLINE Vec<double> tanh(Vec<double> x) {
  const Vec<double> m = expm1(-2.0 * abs(x));
  return copysign(m / (2.0 + m), x);
}

TILEGRAD_INLINE Vec<double> log(Vec<double> x) { return per_lane<::log>(x); }
TILEGRAD_INLINE Vec<double> log1p(Vec<double> x) { return per_lane<::log1p>(x); }
TILEGRAD_INLINE Vec<double> erf(Vec<double> x) { return per_lane<::erf>(x); }
TILEGRAD_INLINE Vec<double> erfc(Vec<double> x) { return per_lane<::erfc>(x); }

}  // namespace tilegrad::cpu::TILEGRAD_ISA
