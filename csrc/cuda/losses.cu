// SPDX-License-Identifier: MIT
// Math:        loss = w (x - t)^2, dx = 2 (x - t) w g, dt = -dx; a mean divides by n or sum w.
// Shapes:      flat runs of n elements; loss and g are (n) for reduction none, else one number.
// Parallelism: a packet of 16 bytes a thread, grid-stride. A sum takes two passes: each block of
//              a grid that depends on n only leaves its double sum in workspace, then one block
//              adds these in order.
// Memory:      coalesced (an unaligned sector: up to 4 requests); x, t and w are read once and the
//              gradients leave with the loss. A weighted mean reads w a second time, beforehand.
#include "../ops.hpp"
#include "reduce.cuh"
#include "vector_io.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 1024;  // and so double sums of a first pass
constexpr int64_t kPackets = 4;        // a thread's, before there are more blocks

// One grid for every device: its size is part of the order of a sum.
template <class T>
unsigned blocks_of(int64_t n) {
  constexpr int64_t kBlock = kThreads * kPackets * kPacket<T>;
  const int64_t wanted = (n + kBlock - 1) / kBlock;
  return static_cast<unsigned>(wanted < kMostBlocks ? wanted : kMostBlocks);
}

// sums[block] = the block's share of x.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_blocks_kernel(double* sums, const T* x, int64_t n, bool aligned) {
  double sum = 0;
  for_slots<T, true>(grid_thread(), grid_threads(), n, aligned, [&](Slot<T> slot) {
    const Packet<T> packet = slot.load(x);
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) sum += static_cast<double>(packet.at[j]);
  });
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// *result = the sum of sums[0, count), over *denominator where that is given, else over `divisor`.
template <class T>
__global__ void __launch_bounds__(kThreads)
    finish_kernel(T* result, const double* sums, int64_t count, const double* denominator,
                  double divisor) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += sums[i];
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) {
    *result = static_cast<T>(sum / (denominator == nullptr ? divisor : *denominator));
  }
}

// Null: not wanted, or not given. With `one_number` the loss goes to sums, a number for each
// block, and grad_output is one number as well.
template <class T>
struct MseArguments {
  T* loss;
  T* dinput;
  T* dtarget;
  double* sums;
  const T* grad_output;
  const T* input;
  const T* target;
  const T* weight;
  const double* denominator;  // sum of weight, or null:
  double divisor;
  int64_t n;
  bool aligned, one_number;
};

template <class T>
__global__ void __launch_bounds__(kThreads) mse_loss_kernel(MseArguments<T> a) {
  double sum = 0;
  const double divisor = a.denominator == nullptr ? a.divisor : *a.denominator;
  const bool one_gradient = a.one_number && a.grad_output != nullptr;
  const double scale = (one_gradient ? static_cast<double>(*a.grad_output) : 1.0) / divisor;
  const T twice = static_cast<T>(scale) + static_cast<T>(scale);
  const bool has_gradient = a.dinput != nullptr || a.dtarget != nullptr;
  for_slots<T, true>(grid_thread(), grid_threads(), a.n, a.aligned, [&](Slot<T> slot) {
    Packet<T> difference = slot.load(a.input);
    const Packet<T> target = slot.load(a.target);
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) difference.at[j] -= target.at[j];
    Packet<T> weighted = difference;
    if (a.weight != nullptr) {
      const Packet<T> weight = slot.load(a.weight);
#pragma unroll
      for (int j = 0; j < kPacket<T>; ++j) weighted.at[j] *= weight.at[j];
    }
    if (a.sums != nullptr || a.loss != nullptr) {
      Packet<T> loss;
#pragma unroll
      for (int j = 0; j < kPacket<T>; ++j) {
        loss.at[j] = difference.at[j] * weighted.at[j];
        sum += static_cast<double>(loss.at[j]);
      }
      if (a.loss != nullptr) slot.store(a.loss, loss);
    }
    if (!has_gradient) return;
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) weighted.at[j] *= twice;
    if (!a.one_number && a.grad_output != nullptr) {
      const Packet<T> grad = slot.load(a.grad_output);
#pragma unroll
      for (int j = 0; j < kPacket<T>; ++j) weighted.at[j] *= grad.at[j];
    }
    if (a.dinput != nullptr) slot.store(a.dinput, weighted);
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) weighted.at[j] = -weighted.at[j];
    if (a.dtarget != nullptr) slot.store(a.dtarget, weighted);
  });
  if (a.sums != nullptr) {
    sum = block_sum<kThreads>(sum);
    if (threadIdx.x == 0) a.sums[blockIdx.x] = sum;
  }
}

}  // namespace

template <class T>
void mse_loss(Context& context, T* loss, T* dinput, T* dtarget, const T* grad_output,
              const T* input, const T* target, const T* weight, int64_t n, Reduction reduction) {
  const cudaStream_t stream = stream_of(context);
  const unsigned blocks = blocks_of<T>(n);
  const bool one_number = reduction != Reduction::none;
  const bool is_mean = reduction == Reduction::mean;
  const double divisor = is_mean ? static_cast<double>(n) : 1;

  WorkspaceScope scope(context);
  double* denominator = nullptr;
  if (is_mean && weight != nullptr) {
    denominator = context.workspace->take<double>(1);
    double* sums = context.workspace->take<double>(blocks);
    launch(sum_blocks_kernel<T>, blocks, kThreads, 0, stream, sums, weight, n,
           packet_aligned(weight));
    launch(finish_kernel<double>, 1, kThreads, 0, stream, denominator, sums, int64_t{blocks},
           nullptr, 1.0);
  }
  T* each = one_number ? nullptr : loss;
  double* sums = one_number && loss != nullptr ? context.workspace->take<double>(blocks) : nullptr;
  const bool aligned = packet_aligned(each, dinput, dtarget, input, target, weight) &&
                       (one_number || packet_aligned(grad_output));
  launch(mse_loss_kernel<T>, blocks, kThreads, 0, stream,
         MseArguments<T>{each, dinput, dtarget, sums, grad_output, input, target, weight,
                         denominator, divisor, n, aligned, one_number});
  if (sums == nullptr) return;
  launch(finish_kernel<T>, 1, kThreads, 0, stream, loss, sums, int64_t{blocks}, denominator,
         divisor);
}

template void mse_loss(Context&, float*, float*, float*, const float*, const float*, const float*,
                       const float*, int64_t, Reduction);
template void mse_loss(Context&, double*, double*, double*, const double*, const double*,
                       const double*, const double*, int64_t, Reduction);

}  // namespace tilegrad::TILEGRAD_BACKEND
