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
  __device__ Head(float* shared, const NetworkStep& step, const CrossEntropyArguments<float>& loss,
                  bool weight_fits)
      : step_(step),
        layer_(step.layers[step.count - 1]),
        loss_(loss),
        weight_fits_(weight_fits),
        logits_(shared),
        dlogits_(shared + kMostStepClasses),
        x_(shared + 2 * kMostStepClasses),
        weight_(x_ + (layer_.in + 3) / 4 * 4) {
    if (!weight_fits) return;
    // Who read the shared memory before is done with it.
    __syncthreads();
    copy_to_shared(weight_, layer_.weight.data, static_cast<int>(layer_.out * layer_.in));
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
#pragma unroll 1
    for (int c = warp; c < classes; c += kThreads / kWarpSize) {
      float sum = 0;
      with_weight([&](const float* weight) {
#pragma unroll 4
        for (int i = lane; i < in; i += kWarpSize) sum = fma(x_[i], weight[c * in + i], sum);
      });
      sum = warp_sum(sum);
      if (layer_.bias.data != nullptr) sum += layer_.bias.data[c];
      if (lane == 0) logits_[c] = sum;
    }
    // The logits are written.
    __syncthreads();
    if (warp == 0) loss_.soft ? loss_of<true>(row) : loss_of<false>(row);
    // So is their gradient.
    __syncthreads();
    static_assert(kMostStepClasses <= kThreads);
    const auto tid = static_cast<int>(threadIdx.x);
    if (tid < classes) layer_.dz[row * classes + tid] = dlogits_[tid];
    if (step_.count > 1) input_gradient(row, step_.layers[step_.count - 2]);
  }

 private:
  using Team = LaneTeam<kWarpSize>;

  // use(W): a loop over shared memory and one over global memory, neither over pointers that may
  // be both.
  template <class Use>
  __device__ void with_weight(const Use& use) const {
    weight_fits_ ? use(weight_) : use(layer_.weight.data);
  }

  __device__ static void copy_to_shared(float* to, const float* from, int count) {
    const int tid = static_cast<int>(threadIdx.x);
    if (count % 4 == 0 && packet_aligned(from)) {
#pragma unroll 1
      for (int i = 4 * tid; i < count; i += 4 * kThreads) cp_async_16(to + i, from + i);
    } else {
#pragma unroll 1
      for (int i = tid; i < count; i += kThreads) cp_async_4(to + i, from + i);
    }
    cp_async_commit();
  }

  template <bool kSoft>
  __device__ void loss_of(int64_t row) {
    // Lane by lane: the row lies in shared memory, where packets are stored by other instructions.
    // One slot of a lane has all its classes.
    static_assert(kMostStepClasses <= Team::kThreads * kPacket<float>);
    const auto slot = RowSlots<float, Team>{layer_.out, false, false}.template at<false>(0);
    const Packet<float> packet = slot.load(logits_);
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
    if (r.counts() && !slot.empty()) add_packet(sums, loss_, r, slot, packet);
    const RowEnd<float> end = end_row<Team>(r, sums);
    if (!slot.empty()) store_gradient<kSoft>(loss_, r, end, slot, packet);
    if (Team::thread() == 0) store_loss(loss_, r, row, end.loss);
  }

  // dz of the layer below.
  __device__ void input_gradient(int64_t row, const StepLayer& below) {
    const auto in = static_cast<int>(layer_.in), classes = static_cast<int>(layer_.out);
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < in; i += kThreads) {
      const float saved = below.saved[row * in + i];
      float sum = 0;
      with_weight([&](const float* weight) {
#pragma unroll 4
        for (int c = 0; c < classes; ++c) sum = fma(dlogits_[c], weight[c * in + i], sum);
      });
      below.dz[row * in + i] = differentiate_apart(below.activation, below.from_output, sum, saved);
    }
  }

  const NetworkStep& step_;
  const StepLayer& layer_;                    // the last
  const CrossEntropyArguments<float>& loss_;  // but for logits and dlogits
  bool weight_fits_;
  float *logits_, *dlogits_, *x_;  // of the row, in shared memory
  float* weight_;                  // W there, where it fits
};

}  // namespace tilegrad::TILEGRAD_BACKEND::step
