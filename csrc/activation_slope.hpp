// SPDX-License-Identifier: MIT
// What the slope of an activation is taken from.
#pragma once

#include "activations.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

// Whether f falls where its options let it: then its result does not tell the side.
inline bool activation_may_fall(Activation activation) {
  const bool has_slope_below =
      activation.kind == ActivationKind::leaky_relu || activation.kind == ActivationKind::elu;
  return has_slope_below && activation.alpha < 0;
}

// Whether f' may be taken from f's result: from less memory, and without z.
inline bool activation_uses_output(Activation activation) {
  if (activation_may_fall(activation)) return false;
  return visit(activation, [](auto f) { return requires(float v) { f.from_output(v, v); }; });
}

}  // namespace tilegrad::TILEGRAD_BACKEND
