// SPDX-License-Identifier: MIT
// choose_fused_mlp and choose_fused_mlp_backward at and beside every border. Prints what is wrong;
// returns 1 if something is.
#include <cstdio>
#include <initializer_list>
#include <utility>

#include "cuda/fused_mlp_choice.hpp"

namespace tilegrad::sim {
namespace {

int failures = 0;

void expect(bool good, const char* what) {
  if (good) return;
  std::printf("FAIL %s\n", what);
  ++failures;
}

MlpShape network(std::initializer_list<int64_t> features, int64_t rows = 10) {
  MlpShape shape{};
  shape.rows = rows;
  shape.layers = static_cast<int>(features.size()) - 1;
  int l = 0;
  for (const int64_t n : features) shape.features[l++] = n;
  shape.hidden = {ActivationKind::relu};
  return shape;
}

MlpShape square(int64_t width, int layers) {
  MlpShape shape = network({width, width});
  shape.layers = layers;
  for (int l = 0; l <= layers; ++l) shape.features[l] = width;
  return shape;
}

constexpr MlpTraits kHopper = {2, 90};

void test_all() {
  for (const auto& [features, width] : {std::pair<int, int>{1, 16},
                                        {16, 16},
                                        {17, 32},
                                        {32, 32},
                                        {33, 64},
                                        {64, 64},
                                        {65, 128},
                                        {128, 128},
                                        {129, 0}}) {
    expect(choose_fused_mlp(square(features, 2), kHopper) == width, "the least width that fits");
    expect(choose_fused_mlp(network({3, features, 1}), kHopper) == width,
           "the widest layer counts");
    expect(choose_fused_mlp_backward(square(features, 2), kHopper) == (width > 0 && width <= 64),
           "64 columns backward");
  }
  expect(choose_fused_mlp(square(128, 6), kHopper) == 128, "6 layers of 128 fit");
  expect(choose_fused_mlp(square(128, 7), kHopper) == 0, "7 layers of 128 do not fit");
  expect(choose_fused_mlp(square(64, 16), kHopper) == 64, "16 layers of 64 fit");
  expect(choose_fused_mlp_backward(square(64, 8), kHopper), "8 layers backward fit");
  expect(!choose_fused_mlp_backward(square(64, 9), kHopper), "9 layers backward do not");
  expect(!choose_fused_mlp_backward(square(64, 1), kHopper), "one layer is linear's");
  expect(choose_fused_mlp(network({3, 64, 1}, 0), kHopper) == 0, "no rows");
  expect(choose_fused_mlp(network({3, 0, 1}), kHopper) == 0, "an empty layer");
  expect(choose_fused_mlp(square(64, 5), {4, 90}) == 0, "float32");
  expect(choose_fused_mlp(square(64, 5), {2, 80}) == 0, "an older device");
  expect(choose_fused_mlp(square(64, 5), {2, 100}) == 0, "a newer device: it has no wgmma");
  for (const auto kind : {ActivationKind::gelu, ActivationKind::silu, ActivationKind::softplus,
                          ActivationKind::mish, ActivationKind::hardswish}) {
    MlpShape smooth = square(64, 5);
    smooth.hidden = {kind};
    expect(choose_fused_mlp(smooth, kHopper) == 64, "any activation forward");
    expect(choose_fused_mlp_backward(smooth, kHopper), "5 layers with their arguments fit");
    smooth = square(64, 6);
    smooth.hidden = {kind};
    expect(choose_fused_mlp(smooth, kHopper) == 64, "6 layers forward");
    expect(!choose_fused_mlp_backward(smooth, kHopper), "6 with their arguments do not");
    MlpShape last = square(64, 8);
    last.output = {kind};
    expect(choose_fused_mlp_backward(last, kHopper), "the last argument needs no room");
  }
  for (const double slope : {0.1, -0.1}) {
    for (const auto kind : {ActivationKind::leaky_relu, ActivationKind::elu}) {
      MlpShape leaky = square(64, 5);
      leaky.output = {kind, slope};
      expect(choose_fused_mlp_backward(leaky, kHopper) == (slope > 0),
             "a result that tells the side");
    }
  }
}

}  // namespace
}  // namespace tilegrad::sim

int main() {
  tilegrad::sim::test_all();
  return tilegrad::sim::failures > 0;
}
