// SPDX-License-Identifier: MIT
// Which networks fused_mlp keeps on chip: a pure function of shape, type and device, apart from the
// algorithms.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../mlp_layers.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

inline constexpr int64_t kMlpSharedBytes = 227 * 1024;  // that a block has on Hopper

// A weight of the network, padded to width x width: rows of 128 bytes, and its bias in float.
constexpr int64_t mlp_layer_bytes(int width) {
  return int64_t{width} * 128 * ((width + 63) / 64) + int64_t{width} * 4;
}
constexpr int64_t mlp_forward_bytes(int width, int layers) {
  return layers * mlp_layer_bytes(width);
}
// Of 64 columns: every layer's input and two layers' dz, 128 rows each, and a tile of ones.
constexpr int64_t mlp_backward_bytes(int layers) {
  return layers * mlp_layer_bytes(64) + (layers + 2) * (int64_t{128} * 128) + 1024;
}

struct MlpTraits {
  int element_bytes;
  int compute_capability;  // 90 for 9.0
};

// The width of the forward kernel that takes the network, the least of 16, 32, 64 and 128 that no
// layer exceeds; 0: it goes layer by layer.
inline int choose_fused_mlp(const MlpShape& shape, const MlpTraits& traits) {
  if (traits.element_bytes != 2 || traits.compute_capability != 90 || shape.rows < 1) return 0;
  const int64_t* const features = shape.features;
  const int64_t widest = *std::max_element(features, features + shape.layers + 1);
  const int64_t narrowest = *std::min_element(features, features + shape.layers + 1);
  if (widest > 128 || narrowest < 1) return 0;
  int width = 16;
  while (width < widest) width *= 2;
  return mlp_forward_bytes(width, shape.layers) <= kMlpSharedBytes ? width : 0;
}

// Whether the backward kernel takes it: 64 columns at most, activations whose slope comes from
// their result, 2 to 8 layers.
inline bool choose_fused_mlp_backward(const MlpShape& shape, const MlpTraits& traits) {
  const int width = choose_fused_mlp(shape, traits);
  return width > 0 && width <= 64 && shape.layers >= 2 && shape.layers <= 8 &&
         slope_from_output(shape.hidden) && slope_from_output(shape.output);
}

static_assert(mlp_backward_bytes(8) <= kMlpSharedBytes);

}  // namespace tilegrad::TILEGRAD_BACKEND
