// SPDX-License-Identifier: MIT
// gradient(dy, saved) = dy f', as one type for each activation and for what was saved of it.
#pragma once

#include "activations.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

template <class F>
struct FromInput {
  F f;
  template <class V>
  __device__ V operator()(V dy, V x) const {
    return f.from_input(dy, x);
  }
};
template <class F>
struct FromOutput {
  F f;
  template <class V>
  __device__ V operator()(V dy, V y) const {
    return f.from_output(dy, y);
  }
};

// Calls body with the gradient of an activation. One that its output does not determine is never
// asked for from there (activation_backward in ops.hpp).
template <class Body>
inline void visit_gradient(Activation activation, bool saved_is_output, Body&& body) {
  visit(activation, [&](auto f) {
    using F = decltype(f);
    if constexpr (requires(float v) { f.from_output(v, v); }) {
      if (saved_is_output) {
        body(FromOutput<F>{f});
        return;
      }
    }
    body(FromInput<F>{f});
  });
}

}  // namespace tilegrad::TILEGRAD_BACKEND
