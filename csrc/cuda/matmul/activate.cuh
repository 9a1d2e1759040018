// SPDX-License-Identifier: MIT
// An activation and its derivative, chosen on the device: one uniform branch an element, where a
// template would multiply every rung by sixteen. Inlined in float; apart, as a call, in double and
// where a kernel has so much code that another copy would cost more than calls do.
#pragma once

#include "../../ops.hpp"
#include "../activations.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// Calls use(f) with the formula of an activation; identity has none.
template <class Use>
__device__ inline void with_formula(const Activation& activation, const Use& use) {
  switch (activation.kind) {
    case ActivationKind::sigmoid:
      return use(Sigmoid{});
    case ActivationKind::tanh:
      return use(Tanh{});
    case ActivationKind::relu:
      return use(Relu{});
    case ActivationKind::leaky_relu:
      return use(LeakyRelu{activation.alpha});
    case ActivationKind::elu:
      return use(Elu{activation.alpha});
    case ActivationKind::selu:
      return use(Elu{kSeluAlpha, kSeluScale});
    case ActivationKind::gelu:
      return use(Gelu{});
    case ActivationKind::gelu_tanh:
      return use(GeluTanh{});
    case ActivationKind::silu:
      return use(Silu{});
    case ActivationKind::softplus:
      return use(Softplus{activation.alpha, activation.beta});
    case ActivationKind::mish:
      return use(Mish{});
    case ActivationKind::hardtanh:
      return use(Hardtanh{activation.alpha, activation.beta});
    case ActivationKind::relu6:
      return use(Hardtanh{0, 6});
    case ActivationKind::hardsigmoid:
      return use(Hardsigmoid{});
    case ActivationKind::hardswish:
      return use(Hardswish{});
    case ActivationKind::identity:
      break;
  }
}

template <class V>
__device__ inline V activate_here(const Activation& activation, V x) {
  with_formula(activation, [&](const auto& f) { x = f.value(x); });
  return x;
}

// dy f', from y where saved_is_output, else from z.
template <class V>
__device__ inline V differentiate_here(const Activation& activation, bool saved_is_output, V dy,
                                       V saved) {
  with_formula(activation, [&](const auto& f) {
    if constexpr (requires { f.from_output(dy, saved); }) {
      if (saved_is_output) {
        dy = f.from_output(dy, saved);
        return;
      }
    }
    dy = f.from_input(dy, saved);
  });
  return dy;
}

template <class V>
[[gnu::noinline]] __device__ V activate_apart(Activation activation, V x) {
  return activate_here(activation, x);
}
template <class V>
[[gnu::noinline]] __device__ V differentiate_apart(Activation activation, bool saved_is_output,
                                                   V dy, V saved) {
  return differentiate_here(activation, saved_is_output, dy, saved);
}

// Inlined, the long formulas of double would cost every product registers.
template <class V>
__device__ inline V activate(const Activation& activation, V x) {
  if constexpr (sizeof(V) == sizeof(double)) {
    return activate_apart(activation, x);
  } else {
    return activate_here(activation, x);
  }
}
template <class V>
__device__ inline V differentiate(const Activation& activation, bool saved_is_output, V dy,
                                  V saved) {
  if constexpr (sizeof(V) == sizeof(double)) {
    return differentiate_apart(activation, saved_is_output, dy, saved);
  } else {
    return differentiate_here(activation, saved_is_output, dy, saved);
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
