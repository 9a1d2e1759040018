// SPDX-License-Identifier: MIT
// The contract of fused_mlp: a small network of dense layers as one op. The rules of ops.hpp hold;
// T is float, double or bfloat16, and on cuda and sim float16.
#pragma once

#include "ops.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

inline constexpr int kMlpLayers = 16;  // at most

// Dense layers one after the other: layer l goes from features[l] to features[l + 1], through
// `hidden`, the last one through `output`.
struct MlpShape {
  int64_t rows;
  int layers;  // 1 to kMlpLayers
  int64_t features[kMlpLayers + 1];
  Activation hidden, output;

  const Activation& activation(int layer) const { return layer + 1 < layers ? hidden : output; }
  LinearSize layer(int l) const { return {rows, features[l], features[l + 1]}; }
};

// Of layer l: weight (features[l + 1], features[l]), bias (features[l + 1]) or null.
template <class P>
struct MlpArrays {
  P* weight[kMlpLayers];
  P* bias[kMlpLayers];
};

// a[0] = x;  a[l + 1] = f_l(a[l] weight[l]^T + bias[l]), rounded to T;  y = a[layers].
template <class T>
void fused_mlp(Context&, T* y, const T* x, const MlpArrays<const T>& parameters,
               const MlpShape& shape);

// The gradients of fused_mlp by linear_backward's rules, from x alone: the forward pass is computed
// again. dx and any gradient of a parameter may be null; G and accumulate as in linear_backward.
// f' is taken from the rounded a[l + 1] where activation_uses_output, else from f's rounded
// argument. Where a backend keeps the network on chip the gradient of a hidden a[l] is not rounded
// before it is multiplied by f'; else it is.
template <class T, class G = T>
void fused_mlp_backward(Context&, T* dx, const MlpArrays<G>& gradients, const T* dy, const T* x,
                        const MlpArrays<const T>& parameters, const MlpShape& shape,
                        bool accumulate);

// Whether fused_mlp_backward keeps the network on chip. Where it does not, a caller that has room
// for what the layers hand on saves the second forward pass.
template <class T>
bool fused_mlp_trains_on_chip(const MlpShape& shape);

}  // namespace tilegrad::TILEGRAD_BACKEND
