// SPDX-License-Identifier: MIT
// Sees the calls of a plan as they are recorded. Where all of them together are a training step
// that cuda/train_step.hpp knows, it runs in their place, as one kernel.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "../../cuda/train_step.hpp"
#include "storage.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

class WholeStep {
 public:
  // Addresses as recorded: on a device a plan's buffers stay where they are.
  void linear(DType dtype, void* y, void* z, const void* x, const void* weight, const void* bias,
              LinearSize size, Activation f) {
    const bool first = network_.count == 0;
    if (dtype != DType::float32 || has_loss_ || network_.count == kMostStepLayers ||
        (first ? false : x != top().y)) {
      return;
    }
    if (first) network_.rows = size.rows;
    if (size.rows != network_.rows) return;
    StepLayer& layer = network_.layers[network_.count++];
    layer = {};
    layer.x = static_cast<const float*>(x);
    layer.y = static_cast<float*>(y);
    layer.z = static_cast<float*>(z);
    layer.saved = layer.y;
    layer.activation = f;
    layer.in = size.in_features;
    layer.out = size.out_features;
    weights_[network_.count - 1] = {weight, bias, nullptr, nullptr};
    ++known_;
  }

  void activation(void* y, const void* x, int64_t n, Activation f) {
    if (network_.count == 0 || has_loss_ || x != top().y || top().z != nullptr ||
        top().activation.kind != ActivationKind::identity || n != network_.rows * top().out) {
      return;
    }
    if (y != x) top().z = top().y;
    top().y = static_cast<float*>(y);
    top().activation = f;
    ++known_;
  }

  void cross_entropy(void* loss, void* dlogits, const void* logits,
                     const CrossEntropy<float>& problem) {
    const bool fits = network_.count > 0 && !has_loss_ && logits == top().y &&
                      top().activation.kind == ActivationKind::identity &&
                      problem.indices.data != nullptr && problem.reduction != Reduction::none &&
                      problem.shape.inner == 1 && problem.shape.outer == network_.rows &&
                      problem.shape.classes == top().out;
    if (!fits) return;
    has_loss_ = true;
    network_.loss = problem;
    network_.loss_value = static_cast<float*>(loss);
    gradient_ = top().dz = static_cast<float*>(dlogits);
    backward_ = network_.count - 1;
    ++known_;
  }

  void activation_backward(void* dx, const void* dy, const void* saved, bool saved_is_output,
                           Activation f) {
    if (!has_loss_ || backward_ < 0) return;
    StepLayer& layer = network_.layers[backward_];
    if (dx != dy || dy != gradient_ || layer.activation.kind != f.kind) return;
    layer.saved = static_cast<const float*>(saved);
    layer.from_output = saved_is_output;
    ++known_;
  }

  void linear_backward(void* dx, void* dweight, void* dbias, const void* dy, const void* x,
                       const void* saved, bool saved_is_output, Activation f) {
    if (!has_loss_ || backward_ < 0) return;
    StepLayer& layer = network_.layers[backward_];
    Weights& weights = weights_[backward_];
    if (dy != gradient_ || x != layer.x || dweight == nullptr ||
        (dbias == nullptr) != (weights.bias == nullptr) || (dx == nullptr) != (backward_ == 0)) {
      return;
    }
    if (f.kind != ActivationKind::identity) {
      layer.saved = static_cast<const float*>(saved);
      layer.from_output = saved_is_output;
    }
    weights.dweight = dweight;
    weights.dbias = dbias;
    gradient_ = dx;
    if (--backward_ >= 0) network_.layers[backward_].dz = static_cast<float*>(dx);
    ++known_;
  }

  template <class T, class Options>
  void update(const std::vector<OptimTensor<T>>& tensors, const Options& options,
              const StepState* state) {
    if constexpr (std::is_same_v<T, float> &&
                  (std::is_same_v<Options, SgdOptions> || std::is_same_v<Options, AdamOptions>)) {
      if (state_ != nullptr || !has_loss_ || backward_ >= 0) return;
      for (const OptimTensor<float>& tensor : tensors) {
        if (!take(tensor)) return;
      }
      options_ = options;
      state_ = state;
      ++known_;
    }
  }

  void allow(bool allowed) { allowed_ = allowed; }

  // Whether it stands for all the calls that were recorded.
  bool replaces(size_t calls) {
    if (!allowed_ || known_ != calls || state_ == nullptr) return false;
    for (int l = 0; l < network_.count; ++l) {
      const StepLayer& layer = network_.layers[l];
      const bool has_bias = weights_[l].bias != nullptr;
      if (layer.weight.data != weights_[l].weight || layer.weight.size != layer.in * layer.out ||
          layer.bias.data != weights_[l].bias || (has_bias && layer.bias.size != layer.out)) {
        return false;
      }
    }
    return takes_network_step(network_);
  }

  // Before a run of it, captured or not.
  void enter(Context& context, int place) {
    const auto stream = static_cast<cudaStream_t>(context.stream);
    if (barrier_ == nullptr) {
      barrier_ = std::make_unique<Storage>(kBarrierBytes, place);
      CUDA_CHECK(cudaMemsetAsync(barrier_->data(), 0, kBarrierBytes, stream));
    }
    barrier_->used_on(stream);
  }

  void operator()(Context& context) const {
    std::visit(
        [&](const auto& options) {
          network_step(context, network_, options, state_,
                       static_cast<GridBarrier*>(barrier_->data()));
        },
        options_);
  }

 private:
  static constexpr size_t kBarrierBytes = 256;

  struct Weights {
    const void *weight, *bias, *dweight, *dbias;
  };

  StepLayer& top() { return network_.layers[network_.count - 1]; }

  bool take(const OptimTensor<float>& tensor) {
    for (int l = 0; l < network_.count; ++l) {
      const bool is_weight = tensor.grad == weights_[l].dweight;
      if (!is_weight && (tensor.grad != weights_[l].dbias || tensor.grad == nullptr)) continue;
      OptimTensor<float>& target = is_weight ? network_.layers[l].weight : network_.layers[l].bias;
      if (target.data != nullptr || tensor.rounded != nullptr) return false;
      target = tensor;
      return true;
    }
    return false;
  }

  NetworkStep network_;
  Weights weights_[kMostStepLayers] = {};
  std::variant<SgdOptions, AdamOptions> options_;
  const StepState* state_ = nullptr;
  const void* gradient_ = nullptr;  // of the output of the layer whose backward call comes next
  int backward_ = -1;               // that layer
  size_t known_ = 0;                // calls seen that fit
  bool has_loss_ = false, allowed_ = true;
  std::unique_ptr<Storage> barrier_;
};

}  // namespace tilegrad::TILEGRAD_BACKEND
