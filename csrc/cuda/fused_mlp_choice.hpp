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
// What the backward kernel takes f' from: f's result, or else its argument.
struct MlpSlopes {
  bool hidden_uses_output, output_uses_output;
};
inline MlpSlopes mlp_slopes(const MlpShape& shape) {
  return {activation_uses_output(shape.hidden), activation_uses_output(shape.output)};
}
// Tiles of arguments: the last layer's stays in registers.
TILEGRAD_HOST_DEVICE constexpr int mlp_argument_tiles(int layers, MlpSlopes slopes) {
  return slopes.hidden_uses_output ? 0 : layers - 1;
}
// Of 64 columns: every layer's input, two layers' dz and the arguments, 128 rows each, and a tile
// of ones.
constexpr int64_t mlp_backward_bytes(int layers, MlpSlopes slopes) {
  const int tiles = layers + 2 + mlp_argument_tiles(layers, slopes);
  return layers * mlp_layer_bytes(64) + tiles * (int64_t{128} * 128) + 1024;
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

// Whether the backward kernel takes it: 64 columns at most, 2 to 8 layers, or to 5 whose hidden
// slopes need their arguments.
inline bool choose_fused_mlp_backward(const MlpShape& shape, const MlpTraits& traits) {
  const int width = choose_fused_mlp(shape, traits);
  return width > 0 && width <= 64 && shape.layers >= 2 && shape.layers <= 8 &&
         mlp_backward_bytes(shape.layers, mlp_slopes(shape)) <= kMlpSharedBytes &&
         !activation_may_fall(shape.hidden) && !activation_may_fall(shape.output);
}

static_assert(mlp_backward_bytes(8, {true, true}) <= kMlpSharedBytes);
static_assert(mlp_backward_bytes(5, {false, false}) <= kMlpSharedBytes);

}  // namespace tilegrad::TILEGRAD_BACKEND
