// SPDX-License-Identifier: MIT
// Math:        of the steps in optim_rules.hpp, shared by all backends; norms below.
// Shapes:      a list of tensors, each cut into chunks of kChunk elements.
// Parallelism: one launch for up to kListSize tensors, whose addresses are its arguments. A block
//              takes chunks, grid-stride, and a thread a packet of 16 bytes at a time. A norm takes
//              two passes: a double sum for each chunk, then one block over the chunks in order.
// Memory:      coalesced (an unaligned sector: up to 4 requests). Elements read + written: SGD
//              2 + 1 or with momentum 3 + 2, Adam 4 + 3, RMSprop and Adagrad 3 + 2 (each of
//              momentum and centering 1 + 1 more), norms 1 + 0; a parameter of 16 bits beside its
//              master 1 + 1 half ones.
//              Scalars come from StepState on the device.
// Source:      torch.optim; see optim_rules.hpp.
#include "../ops.hpp"
#include "numeric.cuh"
//
#include "../optim_constants.hpp"
#include "reduce.cuh"
#include "tensor_list.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kThreads = kListThreads;
// Blocks that registers must allow at a time: `n` of floats, fewer of doubles, without a spill.
template <class T, int n>
constexpr int kFloatBlocks = sizeof(T) == sizeof(float) ? n : n - 1;

// Updates the list by a rule, with the constants that its options give in this step.
template <bool kMasters, class Constants, class Options, class T>
__device__ inline void step_list(const TensorList<T>& list, const Options& options,
                                 const StepState* state) {
  __shared__ Constants constants;
  if (threadIdx.x == 0) constants = constants_of<T>(options, *state);
  // The constants are written: a power in double is for one thread of a block only.
  __syncthreads();
  const Constants c = constants;
  const Kept kept = kept_by<T>(c);
  const int64_t chunks = list.first_chunk[list.count];
  for (int64_t i = blockIdx.x; i < chunks; i += gridDim.x) {
    const OptimTensor<T> chunk = chunk_of(list, i);
    for_chunk_slots(chunk, [&](Slot<T> slot) {
      Packet<T> w = load_values<kMasters>(slot, chunk);
      const Packet<T> g = slot.load(chunk.grad);
      Buffers<Packet<T>> buffers = {};
      if (kept.first) buffers.first = slot.load(chunk.first);
      if (kept.second) buffers.second = slot.load(chunk.second);
      if (kept.third) buffers.third = slot.load(chunk.third);
#pragma unroll
      for (int j = 0; j < kPacket<T>; ++j) {
        Buffers<T> at = {buffers.first.at[j], buffers.second.at[j], buffers.third.at[j]};
        w.at[j] = updated(c, w.at[j], g.at[j], at);
        buffers.first.at[j] = at.first;
        buffers.second.at[j] = at.second;
        buffers.third.at[j] = at.third;
      }
      if (kept.first) slot.store(chunk.first, buffers.first);
      if (kept.second) slot.store(chunk.second, buffers.second);
      if (kept.third) slot.store(chunk.third, buffers.third);
      store_values<kMasters>(slot, chunk, w);
    });
  }
}

template <bool kMasters, class T>
__global__ void __launch_bounds__(kThreads, kFloatBlocks<T, 4>)
    sgd_step_kernel(const __grid_constant__ TensorList<T> list, SgdOptions options,
                    const StepState* state) {
  grid_dependency_wait();
  step_list<kMasters, SgdConstants<T>>(list, options, state);
}

template <bool kMasters, class T>
__global__ void __launch_bounds__(kThreads, kFloatBlocks<T, 3>)
    adam_step_kernel(const __grid_constant__ TensorList<T> list, AdamOptions options,
                     const StepState* state) {
  grid_dependency_wait();
  step_list<kMasters, AdamConstants<T>>(list, options, state);
}

template <bool kMasters, class T>
__global__ void __launch_bounds__(kThreads, kFloatBlocks<T, 3>)
    rmsprop_step_kernel(const __grid_constant__ TensorList<T> list, RmspropOptions options,
                        const StepState* state) {
  grid_dependency_wait();
  step_list<kMasters, RmspropConstants<T>>(list, options, state);
}

template <bool kMasters, class T>
__global__ void __launch_bounds__(kThreads, kFloatBlocks<T, 4>)
    adagrad_step_kernel(const __grid_constant__ TensorList<T> list, AdagradOptions options,
                        const StepState* state) {
  grid_dependency_wait();
  step_list<kMasters, AdagradConstants<T>>(list, options, state);
}

template <bool kMasters, class T, class Options>
auto kernel_of() {
  if constexpr (std::is_same_v<Options, SgdOptions>) return sgd_step_kernel<kMasters, T>;
  if constexpr (std::is_same_v<Options, AdamOptions>) return adam_step_kernel<kMasters, T>;
  if constexpr (std::is_same_v<Options, RmspropOptions>) return rmsprop_step_kernel<kMasters, T>;
  if constexpr (std::is_same_v<Options, AdagradOptions>) return adagrad_step_kernel<kMasters, T>;
}

__device__ inline double combine(double a, double b, NormKind kind) {
  return kind == NormKind::infinity ? max(a, b) : a + b;
}

// parts[chunk] = the chunk's sum of |g| or g^2, or its largest |g|.
template <class T>
__global__ void __launch_bounds__(kThreads)
    norm_chunks_kernel(double* parts, const __grid_constant__ TensorList<T> list, NormKind kind) {
  grid_dependency_wait();
  const int64_t chunks = list.first_chunk[list.count];
  for (int64_t c = blockIdx.x; c < chunks; c += gridDim.x) {
    const OptimTensor<T> chunk = chunk_of(list, c);
    double total = 0;
    const auto add = [&](Slot<T>, const Packet<T>& g) {
#pragma unroll
      for (int j = 0; j < kPacket<T>; ++j) {
        const auto x = static_cast<double>(g.at[j]);
        total = combine(total, kind == NormKind::two ? x * x : abs(x), kind);
      }
    };
    for_packets<T, 4, true>(threadIdx.x, kThreads, chunk.size, packet_aligned(chunk.grad), add,
                            chunk.grad);
    total = kind == NormKind::infinity ? block_max<kThreads>(total) : block_sum<kThreads>(total);
    if (threadIdx.x == 0) parts[c] = total;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    clip_scale_kernel(StepState* state, T* norm, const double* parts, int64_t count, NormKind kind,
                      double max_norm) {
  grid_dependency_wait();
  double total = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) total = combine(total, parts[i], kind);
  total = kind == NormKind::infinity ? block_max<kThreads>(total) : block_sum<kThreads>(total);
  if (threadIdx.x == 0) {
    const auto rounded = static_cast<T>(kind == NormKind::two ? sqrt(total) : total);
    *norm = rounded;
    // In T, and a reciprocal times max_norm, as torch evaluates max_norm / (norm + 1e-6).
    const T coefficient = T(1) / (rounded + static_cast<T>(1e-6)) * static_cast<T>(max_norm);
    state->grad_scale = static_cast<double>(coefficient > T(1) ? T(1) : coefficient);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    scale_kernel(T* x, int64_t n, bool aligned, const StepState* state) {
  grid_dependency_wait();
  const auto factor = static_cast<T>(state->grad_scale);
  if (factor == T(1)) return;  // the whole grid: nothing to do
  const auto store = [&](Slot<T> slot, Packet<T> packet) {
#pragma unroll
    for (T& element : packet.at) element *= factor;
    slot.store(x, packet);
  };
  for_packets<T, 4>(grid_thread(), grid_threads(), n, aligned, store, x);
}

}  // namespace

template <class T, class Options>
void optimizer_step(Context& context, const OptimTensor<T>* tensors, int64_t count,
                    const Options& options, const StepState* state) {
  for_lists(tensors, count, [&](const TensorList<T>& list, int64_t chunks) {
    visit_masters(list, [&](auto masters) {
      launch_next(kernel_of<masters.value, T, Options>(), blocks_for(chunks, 1), kThreads, 0,
                  context, list, options, state);
    });
  });
}

template <class T>
void clip_scale(Context& context, StepState* state, T* norm, const OptimTensor<T>* tensors,
                int64_t count, NormKind kind, double max_norm) {
  int64_t total = 0;
  for (int64_t t = 0; t < count; ++t) total += (tensors[t].size + kChunk - 1) / kChunk;
  WorkspaceScope scope(context);
  double* parts = context.workspace->take<double>(total);
  int64_t done = 0;
  for_lists(tensors, count, [&](const TensorList<T>& list, int64_t chunks) {
    launch_next(norm_chunks_kernel<T>, blocks_for(chunks, 1), kThreads, 0, context, parts + done,
                list, kind);
    done += chunks;
  });
  launch_next(clip_scale_kernel<T>, 1, kThreads, 0, context, state, norm, parts, total, kind,
              max_norm);
}

template <class T>
void scale(Context& context, T* x, int64_t n, const StepState* state) {
  launch_next(scale_kernel<T>, packet_blocks<scale_kernel<T>, T>(n, kThreads), kThreads, 0, context,
              x, n, packet_aligned(x), state);
}

#define TILEGRAD_INSTANTIATE_STEP(T, Options)                                            \
  template void optimizer_step(Context&, const OptimTensor<T>*, int64_t, const Options&, \
                               const StepState*);
#define TILEGRAD_INSTANTIATE(T)                                                                \
  TILEGRAD_INSTANTIATE_STEP(T, SgdOptions)                                                     \
  TILEGRAD_INSTANTIATE_STEP(T, AdamOptions)                                                    \
  TILEGRAD_INSTANTIATE_STEP(T, RmspropOptions)                                                 \
  TILEGRAD_INSTANTIATE_STEP(T, AdagradOptions)                                                 \
  template void clip_scale(Context&, StepState*, T*, const OptimTensor<T>*, int64_t, NormKind, \
                           double);                                                            \
  template void scale(Context&, T*, int64_t, const StepState*);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE
#undef TILEGRAD_INSTANTIATE_STEP

}  // namespace tilegrad::TILEGRAD_BACKEND
