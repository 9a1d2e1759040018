// SPDX-License-Identifier: MIT
// dz = da f' of 64 rows in registers, f' from f's rounded result.
#pragma once

#include "tile.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// dy f' by means of y = f; only activations whose result gives their slope come here.
__device__ inline float slope_times(const Activation& activation, float dy, float y) {
  switch (activation.kind) {
    case ActivationKind::sigmoid:
      return Sigmoid{}.from_output(dy, y);
    case ActivationKind::tanh:
      return Tanh{}.from_output(dy, y);
    case ActivationKind::relu:
      return Relu{}.from_output(dy, y);
    case ActivationKind::leaky_relu:
      return LeakyRelu{activation.alpha}.from_output(dy, y);
    case ActivationKind::elu:
      return Elu{activation.alpha}.from_output(dy, y);
    case ActivationKind::selu:
      return Elu{kSeluAlpha, kSeluScale}.from_output(dy, y);
    case ActivationKind::hardtanh:
      return Hardtanh{activation.alpha, activation.beta}.from_output(dy, y);
    case ActivationKind::relu6:
      return Hardtanh{0, 6}.from_output(dy, y);
    default:
      return dy;
  }
}

template <class T>
__device__ inline float low_of(uint32_t pair) {
  return widen(T{static_cast<uint16_t>(pair & 0xffffu)});
}
template <class T>
__device__ inline float high_of(uint32_t pair) {
  return widen(T{static_cast<uint16_t>(pair >> 16)});
}

// g = d f'(y), rounded.
template <class T>
__device__ inline void differentiate(uint32_t (&g)[16], float (&d)[32], uint32_t (&y)[16],
                                     const Activation& activation) {
  if (activation.kind == ActivationKind::relu) {
#pragma unroll
    for (int p = 0; p < 16; ++p) {
      g[p] = pack<T>(Relu{}.from_output(d[2 * p], low_of<T>(y[p])),
                     Relu{}.from_output(d[2 * p + 1], high_of<T>(y[p])));
    }
    return;
  }
  if (activation.kind != ActivationKind::identity) {
#pragma unroll 1
    for (int turn = 0; turn < 16; ++turn) {
      d[0] = slope_times(activation, d[0], low_of<T>(y[0]));
      d[1] = slope_times(activation, d[1], high_of<T>(y[0]));
      rotate<2>(d);
      rotate<1>(y);
    }
  }
#pragma unroll
  for (int p = 0; p < 16; ++p) g[p] = pack<T>(d[2 * p], d[2 * p + 1]);
}

}  // namespace tilegrad::TILEGRAD_BACKEND
