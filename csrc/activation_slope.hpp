// SPDX-License-Identifier: MIT
// What the slope of an activation is taken from.
#pragma once

#include <cmath>

#include "activations.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

// Whether f falls where its options let it: then its result does not tell the side.
inline bool activation_may_fall(Activation activation) {
  const bool has_slope_below =
      activation.kind == ActivationKind::leaky_relu || activation.kind == ActivationKind::elu;
  return has_slope_below && activation.alpha < 0;
}

// Whether every dtype has this number: bfloat16 its 8 bits, float16 its exponent.
inline bool is_short(double number) {
  if (number == 0) return true;
  int exponent = 0;
  const double digits = std::frexp(number, &exponent) * 256;
  return digits == std::trunc(digits) && exponent > -14 && exponent <= 15;
}

// Whether a bound of f may be rounded in its result: then its result seems to lie inside.
inline bool activation_may_round(Activation activation) {
  return activation.kind == ActivationKind::hardtanh &&
         !(is_short(activation.alpha) && is_short(activation.beta));
}

// Whether f' may be taken from f's result: from less memory, and without z.
inline bool activation_uses_output(Activation activation) {
  if (activation_may_fall(activation) || activation_may_round(activation)) return false;
  return visit(activation, [](auto f) { return requires(float v) { f.from_output(v, v); }; });
}

}  // namespace tilegrad::TILEGRAD_BACKEND
