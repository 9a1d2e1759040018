// SPDX-License-Identifier: MIT
// A whole training step of a small network as one kernel: linear layers, cross-entropy with class
// indices, SGD or Adam.
//
// Math:   y_l = f_l(x_l W_l^T + b_l), x_{l+1} = y_l; loss and dz_L as cross_entropy in ../ops.hpp
//         (mean or sum); dz_{l-1} = (dz_l W_l) f'_{l-1}; W_l by the optimiser from dz_l^T x_l, b_l
//         from the sum of the rows of dz_l. Gradients of weights are not stored.
// Shapes: x_l (rows, in), W_l (out, in), y_l and dz_l (rows, out); the last f is the identity.
// Only the GPU has it: the CPU fuses each layer's update with its gradient (../cpu/linear_update).
#pragma once

#include "../ops.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

inline constexpr int kMostStepLayers = 8;
inline constexpr int64_t kMostStepClasses = 128;

struct StepLayer {
  const float* x;
  float* z;  // the preactivation, or null: nobody reads it
  float* y;  // of the last layer unused: logits are not stored
  float* dz;
  const float* saved;  // y or z, as `from_output` says
  bool from_output;
  Activation activation;
  OptimTensor<float> weight, bias;  // `grad` unused; without bias its data is null
  int64_t in, out;
};

struct NetworkStep {
  StepLayer layers[kMostStepLayers];
  int count = 0;
  int64_t rows = 0;
  CrossEntropy<float> loss;  // of logits layers[count - 1].y, reduction mean or sum
  float* loss_value = nullptr;
};

struct GridBarrier;

// Whether the step is small enough to gain by it and the device can run it: a pure function of
// shapes and device. Addresses and alignment have no say.
bool takes_network_step(const NetworkStep& network);

// Options: SgdOptions or AdamOptions. The barrier is zero before its first use and belongs to steps
// that follow each other.
template <class Options>
void network_step(Context& context, const NetworkStep& network, const Options& options,
                  const StepState* state, GridBarrier* barrier);

}  // namespace tilegrad::TILEGRAD_BACKEND
