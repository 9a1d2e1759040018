// SPDX-License-Identifier: MIT
// fused_mlp as one linear op after the other: what every backend does with a network that it does
// not keep on chip. What the layers hand on lies in workspace.
#pragma once

#include <algorithm>

#include "activation_slope.hpp"
#include "ops_mlp.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

// The most elements that a hidden layer has.
inline int64_t widest_hidden(const MlpShape& shape) {
  int64_t widest = 0;
  for (int l = 1; l < shape.layers; ++l) widest = std::max(widest, shape.features[l]);
  return shape.rows * widest;
}

template <class T>
void mlp_by_layers(Context& context, T* y, const T* x, const MlpArrays<const T>& parameters,
                   const MlpShape& shape) {
  WorkspaceScope scope(context);
  T* hidden[2] = {};  // layers write to them in turn
  for (int i = 0; i < std::min(2, shape.layers - 1); ++i) {
    hidden[i] = context.workspace->take<T>(widest_hidden(shape));
  }
  T* const no_preactivation = nullptr;
  for (int l = 0; l < shape.layers; ++l) {
    T* const to = l + 1 < shape.layers ? hidden[l % 2] : y;
    linear<T>(context, to, no_preactivation, x, parameters.weight[l], parameters.bias[l],
              shape.layer(l), shape.activation(l));
    x = to;
  }
}

template <class T, class G>
void mlp_backward_by_layers(Context& context, T* dx, const MlpArrays<G>& gradients, const T* dy,
                            const T* x, const MlpArrays<const T>& parameters, const MlpShape& shape,
                            bool accumulate) {
  WorkspaceScope scope(context);
  int first = 0;  // the first layer that has a gradient to give
  while (dx == nullptr && first < shape.layers && gradients.weight[first] == nullptr &&
         gradients.bias[first] == nullptr) {
    ++first;
  }
  const T* input[kMlpLayers + 1] = {x};  // a[l]
  const T* saved[kMlpLayers] = {};       // what f' of layer l is taken from
  bool from_output[kMlpLayers] = {};
  for (int l = 0; l < shape.layers; ++l) {
    const Activation& f = shape.activation(l);
    const bool has_slope = f.kind != ActivationKind::identity;
    if (l + 1 == shape.layers && !has_slope) break;  // y itself is not needed
    const int64_t count = shape.rows * shape.features[l + 1];
    from_output[l] = activation_uses_output(f);
    T* const a = context.workspace->take<T>(count);
    T* const z = from_output[l] ? nullptr : context.workspace->take<T>(count);
    linear<T>(context, a, z, input[l], parameters.weight[l], parameters.bias[l], shape.layer(l), f);
    input[l + 1] = a;
    saved[l] = from_output[l] ? a : z;
  }
  T* hidden[2] = {};
  for (int i = 0; i < std::min(2, shape.layers - 1); ++i) {
    hidden[i] = context.workspace->take<T>(widest_hidden(shape));
  }
  for (int l = shape.layers - 1; l >= first; --l) {
    T* const to = l == 0 ? dx : l > first ? hidden[(shape.layers - 1 - l) % 2] : nullptr;
    linear_backward<T, G>(context, to, gradients.weight[l], gradients.bias[l], dy, input[l],
                          parameters.weight[l], saved[l], from_output[l], shape.layer(l),
                          shape.activation(l), accumulate);
    dy = to;
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
