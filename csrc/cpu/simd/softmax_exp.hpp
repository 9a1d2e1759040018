// SPDX-License-Identifier: MIT
// Math: exp(z) for the z = x - max <= 0 of a softmax; up to kTop above it for log-probabilities.
// Unlike exp() it spends nothing on overflow, and lanes whose result rounds to 0 (a masked logit of
//   -inf, the lanes past the end of a row) are taken out before the arithmetic: a product that
//   underflows costs the processor a hundred cycles.
// Accuracy: as exp() in math.hpp and math_double.hpp.
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

// z <= 0 or NaN.
template <class V>
TILEGRAD_INLINE V softmax_exp(V z) {
  using T = typename V::value_type;
  const Mask<V> gone = z < V(ExpRange<T>::kZero);
  const V zero = T(0);
  return select(gone, zero, detail::exp_inside(select(gone, zero, z)));
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
