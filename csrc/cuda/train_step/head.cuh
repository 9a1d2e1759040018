// SPDX-License-Identifier: MIT
// The rows of a step by one kernel: what needs nothing but one sample.
//
// Math:        logits = x W^T + b; loss and dz = dlogits as in ../cross_entropy/row.cuh; dz of the
//              layer below = (dz W) f'.
// Shapes:      x (rows, in), W (classes, in), classes <= kMostStepClasses.
// Parallelism: a block a row: a warp a logit, lanes along `in` and a butterfly; one warp the loss;
//              threads along `in` for the gradient, classes in order.
// Memory:      W and the row lie in shared memory where they fit (W is copied once a phase), else W
//              is read from L2. Coalesced, no bank conflicts; the class is a gather.
#pragma once

#include "../cross_entropy/row.cuh"
#include "finish.cuh"

namespace tilegrad::TILEGRAD_BACKEND::step {

// What one item of the first phase makes for all later ones.
template <class Constants>
struct Prepared {
  Constants constants;
  double denominator;
  float scale;  // of all gradients
};

// The block's sum over the rows; `shared` has a double for each warp. In thread 0 only.
template <class Term>
__device__ inline double sum_of_rows(float* shared, int64_t rows, const Term& term) {
  constexpr int kWarps = kThreads / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  double* const partial = reinterpret_cast<double*>(shared);
  double sum = 0;
#pragma unroll 4
  for (int64_t row = threadIdx.x; row < rows; row += kThreads) sum += term(row);
  sum = warp_sum(sum);
  // Who read the shared memory before is done with it.
  __syncthreads();
  if (lane == 0) partial[warp] = sum;
  // Every warp's sum is written.
  __syncthreads();
  if (threadIdx.x != 0) return 0;
  sum = 0;
  for (int w = 0; w < kWarps; ++w) sum += partial[w];
  return sum;
}

// Row losses and logits of a block.
class Head {
 public:
  __device__ Head(float* shared, const StepLayer& layer, const StepLayer* below,
                  const CrossEntropyArguments<float>& loss, bool weight_fits)
      : layer_(layer),
        below_(below),
        loss_(loss),
        logits_(shared),
        dlogits_(shared + kMostStepClasses),
        x_(shared + 2 * kMostStepClasses),
        weight_(layer.weight.data) {
    if (!weight_fits) return;
    float* const copy = x_ + (layer.in + 3) / 4 * 4;
    // Who read the shared memory before is done with it.
    __syncthreads();
    copy_to_shared(copy, layer.weight.data, static_cast<int>(layer.out * layer.in));
    weight_ = copy;
  }

  __device__ void row(int64_t row) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const auto in = static_cast<int>(layer_.in), classes = static_cast<int>(layer_.out);
    // The row before has been used.
    __syncthreads();
    copy_to_shared(x_, layer_.x + row * in, in);
    cp_async_wait<0>();
    // The row and the weights are there.
    __syncthreads();
    for (int c = warp; c < classes; c += kThreads / kWarpSize) {
      float sum = 0;
#pragma unroll 4
      for (int i = lane; i < in; i += kWarpSize) sum = fma(x_[i], weight_[c * in + i], sum);
      sum = warp_sum(sum);
      if (layer_.bias.data != nullptr) sum += layer_.bias.data[c];
      if (lane == 0) logits_[c] = sum;
    }
    // The logits are written.
    __syncthreads();
    if (warp == 0) loss_.soft ? loss_of<true>(row) : loss_of<false>(row);
    // So is their gradient.
    __syncthreads();
    for (int c = static_cast<int>(threadIdx.x); c < classes; c += kThreads) {
      layer_.dz[row * classes + c] = dlogits_[c];
    }
    if (below_ != nullptr) input_gradient(row);
  }

 private:
  using Team = LaneTeam<kWarpSize>;

  __device__ static void copy_to_shared(float* to, const float* from, int count) {
    const int tid = static_cast<int>(threadIdx.x);
    if (count % 4 == 0 && packet_aligned(from)) {
      for (int i = 4 * tid; i < count; i += 4 * kThreads) cp_async_16(to + i, from + i);
    } else {
      for (int i = tid; i < count; i += kThreads) cp_async_4(to + i, from + i);
    }
    cp_async_commit();
  }

  template <bool kSoft>
  __device__ void loss_of(int64_t row) {
    // Lane by lane: the row lies in shared memory, where packets are stored by other instructions.
    const RowSlots<float, Team> slots{layer_.out, false, false};
    CrossEntropyRow<float> r{};
    r.x = logits_;
    r.dx = dlogits_;
    r.target = class_at(loss_.indices, row, loss_.shape.classes, loss_.ignore_index);
    if (r.target >= 0) {
      r.at_target = logits_[r.target];
      r.hit = loss_.weight == nullptr ? loss_.keep : loss_.keep * loss_.weight[r.target];
    }
    r.scale = *loss_.scale;
    RowSums<float, kSoft> sums;
    if (r.counts()) {
      for_row<1>(slots, r.x, [&](int64_t, const auto& slot, const Packet<float>& packet) {
        add_packet(sums, loss_, r, slot, packet);
      });
    }
    const RowEnd<float> end = end_row<Team>(r, sums);
    for_row<1>(slots, r.x, [&](int64_t, const auto& slot, const Packet<float>& packet) {
      store_gradient<kSoft>(loss_, r, end, slot, packet);
    });
    if (Team::thread() == 0) store_loss(loss_, r, row, end.loss);
  }

  __device__ void input_gradient(int64_t row) {
    const auto in = static_cast<int>(layer_.in), classes = static_cast<int>(layer_.out);
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < in; i += kThreads) {
      const float saved = below_->saved[row * in + i];
      float sum = 0;
#pragma unroll 4
      for (int c = 0; c < classes; ++c) sum = fma(dlogits_[c], weight_[c * in + i], sum);
      below_->dz[row * in + i] = gradient_here(below_->activation, below_->from_output, sum, saved);
    }
  }

  const StepLayer& layer_;
  const StepLayer* below_;
  const CrossEntropyArguments<float>& loss_;  // but for logits and dlogits
  float *logits_, *dlogits_, *x_;             // of the row, in shared memory
  const float* weight_;
};

}  // namespace tilegrad::TILEGRAD_BACKEND::step
