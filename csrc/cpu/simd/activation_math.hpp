// SPDX-License-Identifier: MIT
//
// Math:     sigmoid, sigmoid_pair and the two functions of GELU for Vec<float>, in place of the
//           general ones of activations.hpp, which finds them by argument-dependent lookup. Where
//           every lane allows it a quick way is taken; each lane's result is that of its own way.
// Accuracy: beside each function, in ulp, seen in sweeps as in math.hpp.
// Source:   fits as in math.hpp.
#pragma once

#include "../../activations.hpp"
#include "math.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {

namespace detail {

// a where the sign bit of x is set, else b.
TILEGRAD_INLINE V if_negative(V x, V a, V b) {
#if defined(TILEGRAD_ISA_AVX512)
  return V::from_native(native::blend(native::sign_bits(x.to_bits()), a.v, b.v));
#else
  return V::from_native(native::blend(x.to_bits() >> 31, a.v, b.v));
#endif
}

TILEGRAD_INLINE V minus_abs(V x) { return V::from_bits(x.to_bits() | INT32_MIN); }

// exp(-|x|).
TILEGRAD_INLINE V exp_minus_abs(V x) { return exp_inside(max_or_nan(minus_abs(x), -104.5f)); }

}  // namespace detail

namespace detail {

// 1 / (1 + e) and e / (1 + e) by e = exp(-|x|) <= 1, for any x.
TILEGRAD_INLINE SigmoidPair<V> sigmoid_pair_of_any(V x) {
  const V e = exp_minus_abs(x), large = 1.0f / (1.0f + e), small = e * large;
  return {if_negative(x, small, large), if_negative(x, large, small), small * large};
}

// Up to here exp(-x) and 1 + exp(-x) neither overflow nor are denormal, and their sign does not
// matter: that saves the selections.
inline constexpr float kQuickSigmoid = 80.0f;

}  // namespace detail

// Within 3 ulp, also where the result is denormal.
TILEGRAD_INLINE Vec<float> sigmoid(Vec<float> x) {
  const auto quick = abs(x) <= detail::kQuickSigmoid;
  const detail::V y = 1.0f / (1.0f + detail::exp_quick(-x));
  if (__builtin_expect(all(quick), 1)) return y;
  return select(quick, y, detail::sigmoid_pair_of_any(x).s);
}

TILEGRAD_INLINE SigmoidPair<Vec<float>> sigmoid_pair(Vec<float> x) {
  const auto quick = abs(x) <= detail::kQuickSigmoid;
  const detail::V e = detail::exp_quick(-x), s = 1.0f / (1.0f + e), c = e * s;
  if (__builtin_expect(all(quick), 1)) return {s, c, s * c};
  const SigmoidPair<detail::V> any = detail::sigmoid_pair_of_any(x);
  return {select(quick, s, any.s), select(quick, c, any.c), select(quick, s * c, any.product)};
}

TILEGRAD_INLINE Vec<float> multiply_add(Vec<float> a, Vec<float> b, Vec<float> c) {
  return fma(a, b, c);
}
TILEGRAD_INLINE Vec<float> at_most(Vec<float> x, double limit) {
  return detail::min_or_nan(x, static_cast<float>(limit));
}
TILEGRAD_INLINE Vec<double> multiply_add(Vec<double> a, Vec<double> b, Vec<double> c) {
  return fma(a, b, c);
}

namespace detail {

// exp(-a^2 / 2) with the bounds of exp_by. The square is not rounded: exp would magnify that.
template <V kReduced(V, V, V)>
TILEGRAD_INLINE V gauss(V a) {
#if defined(TILEGRAD_ISA_AVX512) || defined(TILEGRAD_ISA_AVX2)
  const V b = -0.5f * a, x = a * b;
#else
  // a^2 = head^2 - tail, both halves of a square exact
  const V head = V::from_bits(a.to_bits() & ~0xFFF), tail = (head - a) * (head + a);
  const V x = -0.5f * head * head;
#endif
  const V shifted = fma(x, V(1.44269504f), V(kExpShift)), n = shifted - kExpShift;
#if defined(TILEGRAD_ISA_AVX512) || defined(TILEGRAD_ISA_AVX2)
  const V r = fma(n, V(-kLn2Low), fma(a, b, n * -kLn2High));
#else
  const V r = fma(n, V(-kLn2Low), fma(n, V(-kLn2High), x)) + 0.5f * tail;
#endif
  return kReduced(r, shifted, n);
}

// Phi(-a) = exp(-a^2 / 2) R(a) for 0 <= a < 14.5, Phi the normal distribution.
TILEGRAD_INLINE V normal_ratio(V a) {
#if defined(TILEGRAD_ISA_AVX512)
  return piecewise(kNormalTail, a);
#else
  // Fit 2^-26.5.
  const V p = polynomial(a, 0.5f, 0.438494802f, 0.183383226f, 0.0406831838f, 0.00412373198f);
  const V q =
      polynomial(a, 1.0f, 1.67487454f, 1.20311821f, 0.469861627f, 0.101983994f, 0.0103365453f);
  return p / q;
#endif
}

// x Phi(x) for any x.
TILEGRAD_INLINE V gelu_of_any(V x) {
  const V a = min_or_nan(abs(x), 14.5f);
  const V below = gauss<exp_reduced>(a) * normal_ratio(a);
  return x * if_negative(x, below, 1.0f - below);
}

#if defined(TILEGRAD_ISA_AVX512)
// Phi(-a) up to kNormalEnd; 1 minus that of kNormalEnd rounds to 1, so that only x below
// -kNormalEnd are in need of more.
TILEGRAD_INLINE V quick_magnitude(V x) { return min_or_nan(abs(x), kNormalEnd); }
TILEGRAD_INLINE V normal_quick(V a) {
  const V shifted = fma(a, V(kNormalScale), V(kRoundShift));
  const V t = fma(a, V(kNormalScale), kRoundShift - shifted);
  return table_polynomial<0>(kNormal, shifted.to_bits(), t);
}
TILEGRAD_INLINE Mask<V> quick_gelu(V x) { return x >= -kNormalEnd; }
#else
TILEGRAD_INLINE V quick_magnitude(V x) { return abs(x); }
TILEGRAD_INLINE V normal_quick(V a) { return gauss<exp_reduced_quick>(a) * normal_ratio(a); }
TILEGRAD_INLINE Mask<V> quick_gelu(V x) { return abs(x) <= 12.0f; }
#endif

}  // namespace detail

// x Phi(x). Within 2 ulp on avx512 and 6 elsewhere down to x = -12, below within 10.
TILEGRAD_INLINE Vec<float> gelu(Vec<float> x) {
  using detail::V;
  const Mask<V> quick = detail::quick_gelu(x);
  const V a = detail::quick_magnitude(x);
  // max(x, 0) - a Phi(-a); -0 stays
  const V y = fma(-a, detail::normal_quick(a), detail::max_or_nan(x, 0.0f));
  if (__builtin_expect(all(quick), 1)) return y;
  return select(quick, y, detail::gelu_of_any(x));
}

// Phi(x) + x phi(x), phi the normal density. The factor of phi is not bounded: infinity times 0 is
// NaN, as the formula's.
TILEGRAD_INLINE Vec<float> gelu_slope(Vec<float> x) {
  using detail::V;
  const V a = abs(x), b = detail::min_or_nan(a, 14.5f);
  const V e = detail::gauss<detail::exp_reduced>(b);
  const V below = e * fma(a, V(-0.398942280f), detail::normal_ratio(b));
  return detail::if_negative(x, below, 1.0f - below);
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
