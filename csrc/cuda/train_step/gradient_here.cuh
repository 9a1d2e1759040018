// SPDX-License-Identifier: MIT
// dy f' with the activation known on the device only, from what was saved of it.
#pragma once

#include "../activations.cuh"

namespace tilegrad::TILEGRAD_BACKEND::step {

template <class F>
__device__ inline float gradient_by(const F& f, bool from_output, float dy, float saved) {
  if constexpr (requires { f.from_output(dy, saved); }) {
    if (from_output) return f.from_output(dy, saved);
  }
  return f.from_input(dy, saved);
}

__device__ inline float gradient_here(const Activation& activation, bool from_output, float dy,
                                      float saved) {
  const auto by = [&](const auto& f) { return gradient_by(f, from_output, dy, saved); };
  switch (activation.kind) {
    case ActivationKind::sigmoid:
      return by(Sigmoid{});
    case ActivationKind::tanh:
      return by(Tanh{});
    case ActivationKind::relu:
      return by(Relu{});
    case ActivationKind::leaky_relu:
      return by(LeakyRelu{activation.alpha});
    case ActivationKind::elu:
      return by(Elu{activation.alpha});
    case ActivationKind::selu:
      return by(Elu{kSeluAlpha, kSeluScale});
    case ActivationKind::gelu:
      return by(Gelu{});
    case ActivationKind::gelu_tanh:
      return by(GeluTanh{});
    case ActivationKind::silu:
      return by(Silu{});
    case ActivationKind::softplus:
      return by(Softplus{activation.alpha, activation.beta});
    case ActivationKind::mish:
      return by(Mish{});
    case ActivationKind::hardtanh:
      return by(Hardtanh{activation.alpha, activation.beta});
    case ActivationKind::relu6:
      return by(Hardtanh{0, 6});
    case ActivationKind::hardsigmoid:
      return by(Hardsigmoid{});
    case ActivationKind::hardswish:
      return by(Hardswish{});
    case ActivationKind::identity:
      break;
  }
  return dy;
}

}  // namespace tilegrad::TILEGRAD_BACKEND::step
