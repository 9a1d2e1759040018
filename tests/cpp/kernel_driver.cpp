// SPDX-License-Identifier: MIT
// Runs each hot kernel once on a small fixed shape, for callgrind to count its instructions
// (tests/check_instructions.py), and prints the names in that order. The first run of a kernel,
// which allocates and asks for the instruction set, is not counted.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <vector>

#include "../../csrc/ops.hpp"

namespace cpu = tilegrad::cpu;

using Body = std::function<void()>;

// Callgrind counts from entry to exit of the function of this name.
extern "C" __attribute__((noinline)) void measured(const Body& body) { body(); }

namespace {

class Driver {
 public:
  Driver() { context_.workspace = &workspace_; }

  void count(const char* name, const Body& body) {
    body();
    measured(body);
    std::printf("%s\n", name);
  }

  // Values in [-2, 2) from a linear congruence: the same on every machine.
  float* values(int64_t n) {
    std::vector<float>& array = arrays_.emplace_back(static_cast<size_t>(n));
    for (float& value : array) {
      state_ = state_ * 1664525u + 1013904223u;
      value = static_cast<float>(state_ >> 8) * 0x1p-22f - 2;
    }
    return array.data();
  }

  void matmul();
  void linear();
  void elementwise();
  void classes();
  void sequences();
  void optimizers();

 private:
  void product(const char* name, cpu::MatmulSize size, bool a_transposed = false,
               bool b_transposed = false);
  void activation(const char* name, const char* backward_name, cpu::ActivationKind kind,
                  bool from_output);

  cpu::Workspace workspace_;
  cpu::Context context_;
  std::vector<std::vector<float>> arrays_;
  uint32_t state_ = 1;
};

void Driver::product(const char* name, cpu::MatmulSize size, bool a_transposed, bool b_transposed) {
  const auto [batch, m, n, k] = size;
  const cpu::Matrix<float> c{values(m * n), n, 1};
  const cpu::Matrix<const float> a{values(m * k), a_transposed ? 1 : k, a_transposed ? m : 1};
  const cpu::Matrix<const float> b{values(k * n), b_transposed ? 1 : n, b_transposed ? k : 1};
  count(name, [&, size = size] { cpu::matmul<float>(context_, c, a, b, size); });
}

void Driver::matmul() {
  product("matmul_nn_192", {1, 192, 192, 192});
  product("matmul_nt_64", {1, 64, 64, 64}, false, true);
  product("matmul_tn_96", {1, 96, 96, 96}, true, false);
  product("matmul_few_rows_8x512x512", {1, 8, 512, 512});
  product("matmul_few_rows_nt_1x512x512", {1, 1, 512, 512}, false, true);
  product("matmul_narrow_128x10x512", {1, 128, 10, 512}, false, true);
  product("matmul_tiny_8x8x8", {1, 8, 8, 8});
}

void Driver::linear() {
  const cpu::LinearSize size{32, 128, 128};
  const int64_t n = 32 * 128, weights = 128 * 128;
  const cpu::Activation relu{cpu::ActivationKind::relu};
  float *y = values(n), *x = values(n), *weight = values(weights), *bias = values(128);
  float *dx = values(n), *dweight = values(weights), *dbias = values(128), *dy = values(n);
  count("linear_relu",
        [&] { cpu::linear<float>(context_, y, nullptr, x, weight, bias, size, relu); });
  count("linear_backward_relu", [&] {
    cpu::linear_backward<float>(context_, dx, dweight, dbias, dy, x, weight, y, true, size, relu,
                                false);
  });
}

void Driver::activation(const char* name, const char* backward_name, cpu::ActivationKind kind,
                        bool from_output) {
  constexpr int64_t kSize = 10000;
  float *x = values(kSize), *y = values(kSize), *dx = values(kSize), *dy = values(kSize);
  count(name, [&] { cpu::activation<float>(context_, y, x, kSize, {kind}); });
  count(backward_name, [&] {
    cpu::activation_backward<float>(context_, dx, dy, from_output ? y : x, from_output, kSize,
                                    {kind});
  });
}

void Driver::elementwise() {
  using enum cpu::ActivationKind;
  activation("relu", "relu_backward", relu, true);
  activation("sigmoid", "sigmoid_backward", sigmoid, true);
  activation("tanh", "tanh_backward", tanh, true);
  activation("elu", "elu_backward", elu, false);
  activation("gelu", "gelu_backward", gelu, false);
  activation("gelu_tanh", "gelu_tanh_backward", gelu_tanh, false);
  activation("silu", "silu_backward", silu, false);
  activation("mish", "mish_backward", mish, false);
  activation("hardswish", "hardswish_backward", hardswish, false);

  constexpr int64_t kSize = 10000;
  float *x = values(kSize), *y = values(kSize);
  const cpu::StepState state;
  count("dropout", [&] { cpu::dropout<float>(context_, y, x, kSize, 0.5, 0, &state); });
  count("random_uniform", [&] { cpu::random_uniform<float>(context_, y, kSize, -1, 1, 7, 0); });
  count("random_normal", [&] { cpu::random_normal<float>(context_, y, kSize, 0, 1, 7, 0); });
  count("sum_axis_first", [&] { cpu::sum_axis<float>(context_, y, x, 1, 100, 100, false); });
  count("sum_axis_last", [&] { cpu::sum_axis<float>(context_, y, x, 100, 100, 1, false); });
  const float slope = 0.25f;
  count("prelu", [&] { cpu::prelu<float>(context_, y, x, &slope, {1, 1, kSize}); });

  float loss = 0;
  float* const gradients[3] = {y, nullptr, nullptr};
  const std::pair<const char*, cpu::LossFunction> losses[] = {
      {"mse_loss", {cpu::LossKind::mse}},
      {"huber_loss", {cpu::LossKind::huber, 1}},
      {"binary_cross_entropy_with_logits", {cpu::LossKind::binary_cross_entropy_with_logits}},
      {"kl_div", {cpu::LossKind::kl_div}}};
  for (const auto& [name, function] : losses) {
    cpu::ElementwiseLoss<float> problem{
        function, x, x, nullptr, nullptr, kSize, cpu::Reduction::mean, double{kSize}};
    int64_t bad = -1;
    count(name, [&] {
      cpu::elementwise_loss<float>(context_, &loss, gradients, nullptr, problem, &bad);
    });
  }
}

void Driver::classes() {
  struct Case {
    const char *softmax, *softmax_backward, *log_softmax, *log_softmax_backward, *cross_entropy;
    cpu::ClassShape shape;
  };
  const Case cases[] = {
      {"softmax_10",
       "softmax_backward_10",
       "log_softmax_10",
       "log_softmax_backward_10",
       "cross_entropy_10",
       {128, 10, 1}},
      {"softmax_1000",
       "softmax_backward_1000",
       "log_softmax_1000",
       "log_softmax_backward_1000",
       "cross_entropy_1000",
       {16, 1000, 1}},
      {"softmax_columns",
       "softmax_backward_columns",
       "log_softmax_columns",
       "log_softmax_backward_columns",
       "cross_entropy_columns",
       {4, 20, 100}},
      {"softmax_few_columns",
       "softmax_backward_few_columns",
       "log_softmax_few_columns",
       "log_softmax_backward_few_columns",
       "cross_entropy_few_columns",
       {100, 20, 4}},
  };
  for (const Case& c : cases) {
    const int64_t rows = c.shape.outer * c.shape.inner, n = rows * c.shape.classes;
    float *x = values(n), *y = values(n), *dx = values(n), *dy = values(n);
    count(c.softmax, [&] { cpu::softmax<float>(context_, y, x, c.shape, false); });
    count(c.softmax_backward,
          [&] { cpu::softmax_backward<float>(context_, dx, dy, y, c.shape, false); });
    count(c.log_softmax, [&] { cpu::softmax<float>(context_, y, x, c.shape, true); });
    count(c.log_softmax_backward,
          [&] { cpu::softmax_backward<float>(context_, dx, dy, y, c.shape, true); });
    std::vector<int64_t> targets(static_cast<size_t>(rows));
    for (size_t row = 0; row < targets.size(); ++row) {
      targets[row] = static_cast<int64_t>(row) % c.shape.classes;
    }
    cpu::CrossEntropy<float> problem{};
    problem.logits = x;
    problem.indices.data = targets.data();
    problem.shape = c.shape;
    problem.ignore_index = -100;
    problem.reduction = cpu::Reduction::mean;
    float loss = 0;
    int64_t bad_row = -1;
    count(c.cross_entropy,
          [&] { cpu::cross_entropy<float>(context_, &loss, dx, nullptr, problem, &bad_row); });
  }
}

void Driver::sequences() {
  constexpr int64_t kTime = 20, kBatch = 2, kClasses = 33, kLabels = 7;
  constexpr int64_t kSize = kTime * kBatch * kClasses;
  const float* log_probs = values(kSize);
  float *gradient = values(kSize), loss = 0;
  constexpr int64_t kTargets[] = {1, 2, 3, 3, 2, 1, 5, 9, 9, 8, 7, 6, 5, 4};
  constexpr int64_t kTimes[] = {kTime, kTime}, kCounts[] = {kLabels, kLabels},
                    kStarts[] = {0, kLabels};
  cpu::CtcLoss<float> problem{};
  problem.log_probs = log_probs;
  problem.targets.data = kTargets;
  problem.input_lengths = kTimes;
  problem.target_lengths = kCounts;
  problem.target_starts = kStarts;
  problem.time = kTime;
  problem.batch = kBatch;
  problem.classes = kClasses;
  int64_t bad_target = -1;
  count("ctc_loss",
        [&] { cpu::ctc_loss<float>(context_, &loss, gradient, nullptr, problem, &bad_target); });
}

void Driver::optimizers() {
  constexpr int64_t kSize = 10000;
  const cpu::OptimTensor<float> tensor{values(kSize), values(kSize), values(kSize),
                                       values(kSize), values(kSize), kSize};
  for (int64_t i = 0; i < kSize; ++i) tensor.second[i] *= tensor.second[i];  // means of squares
  cpu::StepState state;
  state.learning_rate = 1e-3;
  cpu::SgdOptions momentum;
  momentum.momentum = 0.9;
  const auto step = [&](const auto& options) {
    cpu::optimizer_step(context_, &tensor, 1, options, &state);
  };
  count("sgd_step", [&] { step(cpu::SgdOptions()); });
  count("sgd_step_momentum", [&] { step(momentum); });
  count("adam_step", [&] { step(cpu::AdamOptions()); });
  count("rmsprop_step", [&] { step(cpu::RmspropOptions()); });
  count("adagrad_step", [&] { step(cpu::AdagradOptions()); });
  float norm = 0;
  count("clip_scale", [&] {
    cpu::clip_scale<float>(context_, &state, &norm, &tensor, 1, cpu::NormKind::two, 1.0);
  });
}

}  // namespace

int main() {
  Driver driver;
  driver.matmul();
  driver.linear();
  driver.elementwise();
  driver.classes();
  driver.sequences();
  driver.optimizers();
  return 0;
}
