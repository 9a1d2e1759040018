// SPDX-License-Identifier: MIT
//
// Math:     sigmoid, sigmoid_pair and the two functions of GELU for Vec<float>, in place of the
//           general ones of activations.hpp, which finds them by argument-dependent lookup.
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

// Within 2 ulp, also where the result is denormal.
TILEGRAD_INLINE Vec<float> sigmoid(Vec<float> x) {
  const detail::V e = detail::exp_minus_abs(x);
  return detail::if_negative(x, e, 1.0f) / (1.0f + e);
}

TILEGRAD_INLINE SigmoidPair<Vec<float>> sigmoid_pair(Vec<float> x) {
  const detail::V e = detail::exp_minus_abs(x), large = 1.0f / (1.0f + e);
  const detail::V small = e * large;
  return {detail::if_negative(x, small, large), detail::if_negative(x, large, small)};
}

#if defined(TILEGRAD_ISA_AVX512) || defined(TILEGRAD_ISA_AVX2)
namespace detail {

// exp(a b), the product not rounded, for -104.5 <= a b <= 89.
TILEGRAD_INLINE V exp_of_product(V a, V b) {
  const V shifted = fma(a * b, V(1.44269504f), V(kExpShift)), n = shifted - kExpShift;
  return exp_reduced(fma(n, V(-kLn2Low), fma(a, b, n * -kLn2High)), shifted, n);
}

// Phi(-a) = exp(-a^2 / 2) R(a) for 0 <= a < 14.5, Phi the normal distribution.
struct NormalTail {
  V exp, r;
};
TILEGRAD_INLINE NormalTail normal_tail(V a) {
#if defined(TILEGRAD_ISA_AVX512)
  const V r = piecewise(kNormalTail, a);
#else
  // Fit 2^-26.5.
  const V p = polynomial(a, 0.5f, 0.438494802f, 0.183383226f, 0.0406831838f, 0.00412373198f);
  const V q =
      polynomial(a, 1.0f, 1.67487454f, 1.20311821f, 0.469861627f, 0.101983994f, 0.0103365453f);
  const V r = p / q;
#endif
  return {exp_of_product(-0.5f * a, a), r};
}

}  // namespace detail

// x Phi(x). Within 4 ulp, also where the result is denormal.
TILEGRAD_INLINE Vec<float> gelu(Vec<float> x) {
  const auto [e, r] = detail::normal_tail(detail::min_or_nan(abs(x), 14.5f));
  const detail::V below = e * r;
  return x * detail::if_negative(x, below, 1.0f - below);
}

// Phi(x) + x phi(x), phi the normal density. The factor of phi is not bounded: infinity times 0 is
// NaN, as the formula's.
TILEGRAD_INLINE Vec<float> gelu_slope(Vec<float> x) {
  const detail::V a = abs(x);
  const auto [e, r] = detail::normal_tail(detail::min_or_nan(a, 14.5f));
  const detail::V below = e * fma(a, detail::V(-0.398942280f), r);
  return detail::if_negative(x, below, 1.0f - below);
}
#endif

}  // namespace tilegrad::cpu::TILEGRAD_ISA
