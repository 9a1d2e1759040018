// SPDX-License-Identifier: MIT
// Math: exp(z) for the z = x - max <= 0 of a softmax; up to kTop above it for log-probabilities.
// Unlike exp() it spends nothing on overflow, and lanes whose result rounds to 0 (a masked logit of
//   -inf, the lanes past the end of a row) are taken out before the arithmetic: a product that
//   underflows costs the processor a hundred cycles.
// Accuracy: float as exp(); double within 1 ulp where fma() rounds once, else 2.
// Source: reduction by n ln 2 after Cody and Waite; double: Taylor's series to r^13, whose
//   remainder for |r| <= ln(2)/2 is 2^-57.
#pragma once

#include "math.hpp"
#include "vec.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {

// Below kZero exp rounds to 0, above kTop to infinity.
template <class T>
struct ExpRange;
template <>
struct ExpRange<float> {
  static constexpr float kZero = -103.98f, kTop = 89.0f;
};
template <>
struct ExpRange<double> {
  static constexpr double kZero = -745.14, kTop = 710.0;
};

namespace detail {

// exp(z) for z from kZero to kTop, or NaN; that of float is in math.hpp.
TILEGRAD_INLINE Vec<double> exp_inside(Vec<double> z) {
  using D = Vec<double>;
  constexpr double kShift = 0x1.8p52;  // adding it leaves an integer in the low bits
  const D shifted = fma(z, D(1.4426950408889634), D(kShift));
  const D n = shifted - kShift;
  // ln 2 in two parts, the first with 32 bits, so that its product with n is exact.
  const D r = fma(n, D(-1.9082149292705877e-10), fma(n, D(-0x1.62e42feep-1), z));
  // 1/k!, in pairs: two short chains are faster than one long.
  const D s = r * r;
  constexpr double c[] = {1.0 / 2,       1.0 / 6,        1.0 / 24,        1.0 / 120,
                          1.0 / 720,     1.0 / 5040,     1.0 / 40320,     1.0 / 362880,
                          1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
  D q = fma(r, D(c[11]), D(c[10]));
#pragma GCC unroll 8
  for (int k = 8; k >= 0; k -= 2) q = fma(s, q, fma(r, D(c[k + 1]), D(c[k])));
  const D y = 1.0 + fma(s, q, r);
#if defined(TILEGRAD_ISA_AVX512)
  return D::from_native(native::scalef(y.v, n.v));
#else
  // In two factors: 2^n may be denormal or infinite where the result is not.
  const D::Int exponent = shifted.to_bits() - D(kShift).to_bits();
  const D::Int half = (n * 0.5 + kShift).to_bits() - D(kShift).to_bits();
  const D::Int one = D(1.0).to_bits();
  return y * D::from_bits((half << 52) + one) * D::from_bits(((exponent - half) << 52) + one);
#endif
}

}  // namespace detail

// z <= 0 or NaN.
template <class V>
TILEGRAD_INLINE V softmax_exp(V z) {
  using T = typename V::value_type;
  const Mask<V> gone = z < V(ExpRange<T>::kZero);
  const V zero = T(0);
  return select(gone, zero, detail::exp_inside(select(gone, zero, z)));
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
