// SPDX-License-Identifier: MIT
// Math:        loss = w f(a, b, c), its gradients w f' g by each operand (losses.hpp); a mean
//              divides by a number, or by the sum of w.
// Shapes:      flat runs of n elements; loss and g are (n) for reduction none, else one number.
// Parallelism: a packet of 16 bytes a thread, grid-stride. A sum takes two passes: each block of
//              a grid that depends on n only leaves its double sum in workspace, then one block
//              adds these in order.
// Memory:      coalesced (an unaligned sector: up to 4 requests); an operand is read once and the
//              gradients leave with the loss. A weighted mean reads w a second time, beforehand.
#include "numeric.cuh"
//
#include "../losses.hpp"
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
  grid_dependency_wait();
  double sum = 0;
  const auto add = [&](Slot<T>, const Packet<T>& packet) {
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) sum += static_cast<double>(packet.at[j]);
  };
  for_packets<T, 4, true>(grid_thread(), grid_threads(), n, aligned, add, x);
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// *result = the sum of sums[0, count), over *denominator where that is given, else over `divisor`.
template <class T>
__global__ void __launch_bounds__(kThreads)
    finish_kernel(T* result, const double* sums, int64_t count, const double* denominator,
                  double divisor) {
  grid_dependency_wait();
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
struct LossArguments {
  T* loss;
  T* gradients[3];
  double* sums;
  const T* grad_output;
  const T *a, *b, *c;
  const T* weight;
  const double* denominator;  // sum of weight, or null:
  double divisor;
  int64_t n;
  bool aligned, one_number;
};

template <class T>
__device__ inline Packet<T> load_or_one(Slot<T> slot, const T* p) {
  if (p != nullptr) return slot.load(p);
  Packet<T> packet;
#pragma unroll
  for (T& element : packet.at) element = T(1);
  return packet;
}

// to[i] = f(j) * factor, for the elements j of a slot.
template <class T, class F>
__device__ inline void store_gradient(Slot<T> slot, T* to, const Packet<T>& factor, F f) {
  if (to == nullptr) return;
  Packet<T> gradient;
#pragma unroll
  for (int j = 0; j < kPacket<T>; ++j) gradient.at[j] = f(j) * factor.at[j];
  slot.store(to, gradient);
}

template <class T, class Loss>
__global__ void __launch_bounds__(kThreads)
    elementwise_loss_kernel(const LossArguments<T> arguments, Loss f) {
  grid_dependency_wait();
  const LossArguments<T>& p = arguments;
  double sum = 0;
  const double divisor = p.denominator == nullptr ? p.divisor : *p.denominator;
  const bool one_gradient = p.one_number && p.grad_output != nullptr;
  const T scale =
      static_cast<T>((one_gradient ? static_cast<double>(*p.grad_output) : 1.0) / divisor);
  for_slots<T, true>(grid_thread(), grid_threads(), p.n, p.aligned, [&](Slot<T> slot) {
    const Packet<T> a = slot.load(p.a), b = slot.load(p.b);
    const Packet<T> c = load_or_one(slot, p.c), weight = load_or_one(slot, p.weight);
    Packet<T> factor = load_or_one(slot, p.one_number ? nullptr : p.grad_output);
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) factor.at[j] *= weight.at[j] * scale;
    store_gradient(slot, p.gradients[0], factor,
                   [&](int j) { return f.by_a(a.at[j], b.at[j], c.at[j]); });
    if constexpr (requires(T x) { f.by_b(x, x, x); }) {
      store_gradient(slot, p.gradients[1], factor,
                     [&](int j) { return f.by_b(a.at[j], b.at[j], c.at[j]); });
    }
    if constexpr (requires(T x) { f.by_c(x, x, x); }) {
      store_gradient(slot, p.gradients[2], factor,
                     [&](int j) { return f.by_c(a.at[j], b.at[j], c.at[j]); });
    }
    if (p.sums == nullptr && p.loss == nullptr) return;
    Packet<T> loss;
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) {
      loss.at[j] = weight.at[j] * f.value(a.at[j], b.at[j], c.at[j]);
      if (slot.index(j) < p.n) sum += static_cast<double>(loss.at[j]);
    }
    if (p.loss != nullptr) slot.store(p.loss, loss);
  });
  if (p.sums != nullptr) {
    sum = block_sum<kThreads>(sum);
    if (threadIdx.x == 0) p.sums[blockIdx.x] = sum;
  }
}

template <class T>
void start(Context& context, unsigned blocks, const LossFunction& loss,
           const LossArguments<T>& arguments) {
  visit(loss, [&](auto f) {
    launch_next(elementwise_loss_kernel<T, decltype(f)>, blocks, kThreads, 0, context, arguments,
                f);
  });
}

}  // namespace

template <class T>
void elementwise_loss(Context& context, T* loss, T* const (&gradients)[3], const T* grad_output,
                      const ElementwiseLoss<T>& problem, int64_t* bad) {
  *bad = -1;
  const int64_t n = problem.n;
  const unsigned blocks = blocks_of<T>(n);
  const bool one_number = problem.reduction != Reduction::none;
  const bool is_mean = problem.reduction == Reduction::mean;

  LossArguments<T> arguments{one_number ? nullptr : loss,
                             {gradients[0], gradients[1], gradients[2]},
                             nullptr,
                             grad_output,
                             problem.a,
                             problem.b,
                             problem.c,
                             problem.weight,
                             nullptr,
                             is_mean ? problem.divisor : 1,
                             n,
                             false,
                             one_number};
  WorkspaceScope scope(context);
  if (is_mean && problem.divide_by_weight) {
    double* denominator = context.workspace->take<double>(1);
    double* sums = context.workspace->take<double>(blocks);
    launch_next(sum_blocks_kernel<T>, blocks, kThreads, 0, context, sums, problem.weight, n,
                packet_aligned(problem.weight));
    launch_next(finish_kernel<double>, 1, kThreads, 0, context, denominator, sums, int64_t{blocks},
                nullptr, 1.0);
    arguments.denominator = denominator;
  }
  if (one_number && loss != nullptr) arguments.sums = context.workspace->take<double>(blocks);
  arguments.aligned = packet_aligned(arguments.loss, gradients[0], gradients[1], gradients[2],
                                     problem.a, problem.b, problem.c, problem.weight) &&
                      (one_number || packet_aligned(grad_output));
  start(context, blocks, problem.function, arguments);
  if (arguments.sums == nullptr) return;
  launch_next(finish_kernel<T>, 1, kThreads, 0, context, loss, arguments.sums, int64_t{blocks},
              arguments.denominator, arguments.divisor);
}

template void elementwise_loss(Context&, float*, float* const (&)[3], const float*,
                               const ElementwiseLoss<float>&, int64_t*);
template void elementwise_loss(Context&, double*, double* const (&)[3], const double*,
                               const ElementwiseLoss<double>&, int64_t*);

}  // namespace tilegrad::TILEGRAD_BACKEND
