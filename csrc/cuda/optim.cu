// SPDX-License-Identifier: MIT
// Math:        in ops.hpp; each line below is one operation of torch's single-tensor path, fused
//              multiply-adds included.
// Shapes:      a list of tensors, each cut into chunks of kChunk elements.
// Parallelism: one launch for up to kListSize tensors, whose addresses are its arguments. A block
//              takes chunks, grid-stride, and a thread a packet of 16 bytes at a time. A norm takes
//              two passes: a double sum for each chunk, then one block over the chunks in order.
// Memory:      coalesced (an unaligned sector: up to 4 requests). Elements read + written: Adam
//              4 + 3, SGD 2 + 1 or with momentum 3 + 2, norms 1 + 0; a parameter of 16 bits beside
//              its master 1 + 1 half ones. Scalars come from StepState on the device.
// Source:      torch.optim.SGD, Adam, AdamW (foreach=False); Kingma and Ba, arXiv:1412.6980;
//              Loshchilov and Hutter, arXiv:1711.05101; Reddi et al., arXiv:1904.09237.
#include "../ops.hpp"
#include "reduce.cuh"
#include "tensor_list.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kThreads = kListThreads;

// Scalars are computed in double and rounded to T once, as torch does.
__device__ inline double gradient_factor(const StepState& state, bool maximize) {
  return maximize ? -state.grad_scale : state.grad_scale;
}

template <bool kMasters, class T>
__global__ void __launch_bounds__(kThreads)
    sgd_step_kernel(const __grid_constant__ TensorList<T> list, SgdOptions options,
                    const StepState* state) {
  const auto factor = static_cast<T>(gradient_factor(*state, options.maximize));
  const auto weight_decay = static_cast<T>(options.weight_decay);
  const auto momentum = static_cast<T>(options.momentum);
  const auto undamped = static_cast<T>(1 - options.dampening);
  const auto minus_rate = static_cast<T>(-state->learning_rate);
  const bool has_decay = options.weight_decay != 0, has_momentum = options.momentum != 0;
  const bool first_step = state->step == 1;
  const int64_t chunks = list.first_chunk[list.count];
  for (int64_t c = blockIdx.x; c < chunks; c += gridDim.x) {
    const OptimTensor<T> chunk = chunk_of(list, c);
    for_chunk_slots(chunk, [&](Slot<T> slot) {
      Packet<T> w = load_values<kMasters>(slot, chunk);
      Packet<T> g = slot.load(chunk.grad);
      Packet<T> v = {};
      if (has_momentum && !first_step) v = slot.load(chunk.first);
#pragma unroll
      for (int j = 0; j < kPacket<T>; ++j) {
        T step = g.at[j] * factor;
        if (has_decay) step = fma(w.at[j], weight_decay, step);
        if (has_momentum) {
          v.at[j] = first_step ? step : fma(step, undamped, v.at[j] * momentum);
          step = options.nesterov ? fma(v.at[j], momentum, step) : v.at[j];
        }
        w.at[j] = fma(step, minus_rate, w.at[j]);
      }
      if (has_momentum) slot.store(chunk.first, v);
      store_values<kMasters>(slot, chunk, w);
    });
  }
}

template <class T>
struct AdamConstants {
  T gradient_factor, data_factor, weight_decay, beta2, one_minus_beta2;
  T one_minus_beta1, sqrt_correction2, eps, minus_step_size;
};

template <class T>
__device__ inline AdamConstants<T> adam_constants(const AdamOptions& options,
                                                  const StepState& state) {
  const double rate = state.learning_rate;
  const auto step = static_cast<double>(state.step);
  const double correction1 = 1 - ::pow(options.beta1, step);
  const double correction2 = 1 - ::pow(options.beta2, step);
  const bool decoupled = options.weight_decay != 0 && options.decoupled;
  return {static_cast<T>(gradient_factor(state, options.maximize)),
          static_cast<T>(decoupled ? 1 - rate * options.weight_decay : 1.0),
          static_cast<T>(options.weight_decay),
          static_cast<T>(options.beta2),
          static_cast<T>(1 - options.beta2),
          static_cast<T>(1 - options.beta1),
          static_cast<T>(::pow(correction2, 0.5)),
          static_cast<T>(options.eps),
          static_cast<T>(-(rate / correction1))};
}

template <bool kMasters, class T>
__global__ void __launch_bounds__(kThreads, 2)
    adam_step_kernel(const __grid_constant__ TensorList<T> list, AdamOptions options,
                     const StepState* state) {
  __shared__ AdamConstants<T> constants;
  if (threadIdx.x == 0) constants = adam_constants<T>(options, *state);
  // The constants are written: a power in double is for one thread of a block only.
  __syncthreads();
  const AdamConstants<T> c = constants;
  const bool has_decay = options.weight_decay != 0 && !options.decoupled;
  // torch.lerp starts from the nearer end, so that both ends are exact.
  const bool from_m = c.one_minus_beta1 < T(0.5);
  const T lerp_weight = from_m ? c.one_minus_beta1 : c.one_minus_beta1 - T(1);
  const int64_t chunks = list.first_chunk[list.count];
  for (int64_t i = blockIdx.x; i < chunks; i += gridDim.x) {
    const OptimTensor<T> chunk = chunk_of(list, i);
    for_chunk_slots(chunk, [&](Slot<T> slot) {
      Packet<T> w = load_values<kMasters>(slot, chunk);
      Packet<T> g = slot.load(chunk.grad);
      Packet<T> m = slot.load(chunk.first);
      Packet<T> v = slot.load(chunk.second);
#pragma unroll
      for (int j = 0; j < kPacket<T>; ++j) {
        w.at[j] *= c.data_factor;
        g.at[j] *= c.gradient_factor;
        if (has_decay) g.at[j] = fma(w.at[j], c.weight_decay, g.at[j]);
        m.at[j] = fma(lerp_weight, g.at[j] - m.at[j], from_m ? m.at[j] : g.at[j]);
        v.at[j] = fma(g.at[j] * c.one_minus_beta2, g.at[j], v.at[j] * c.beta2);
      }
      slot.store(chunk.first, m);
      slot.store(chunk.second, v);
      if (options.amsgrad) {
        const Packet<T> largest = slot.load(chunk.third);
#pragma unroll
        for (int j = 0; j < kPacket<T>; ++j) v.at[j] = max(largest.at[j], v.at[j]);
        slot.store(chunk.third, v);
      }
#pragma unroll
      for (int j = 0; j < kPacket<T>; ++j) {
        const T denominator = sqrt(v.at[j]) / c.sqrt_correction2 + c.eps;
        w.at[j] += c.minus_step_size * m.at[j] / denominator;
      }
      store_values<kMasters>(slot, chunk, w);
    });
  }
}

__device__ inline double combine(double a, double b, NormKind kind) {
  return kind == NormKind::infinity ? max(a, b) : a + b;
}

// parts[chunk] = the chunk's sum of |g| or g^2, or its largest |g|.
template <class T>
__global__ void __launch_bounds__(kThreads)
    norm_chunks_kernel(double* parts, const __grid_constant__ TensorList<T> list, NormKind kind) {
  const int64_t chunks = list.first_chunk[list.count];
  for (int64_t c = blockIdx.x; c < chunks; c += gridDim.x) {
    const OptimTensor<T> chunk = chunk_of(list, c);
    double total = 0;
    for_slots<T, true>(threadIdx.x, kThreads, chunk.size, packet_aligned(chunk.grad),
                       [&](Slot<T> slot) {
                         const Packet<T> g = slot.load(chunk.grad);
#pragma unroll
                         for (int j = 0; j < kPacket<T>; ++j) {
                           const auto x = static_cast<double>(g.at[j]);
                           total = combine(total, kind == NormKind::two ? x * x : abs(x), kind);
                         }
                       });
    total = kind == NormKind::infinity ? block_max<kThreads>(total) : block_sum<kThreads>(total);
    if (threadIdx.x == 0) parts[c] = total;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    clip_scale_kernel(StepState* state, T* norm, const double* parts, int64_t count, NormKind kind,
                      double max_norm) {
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
  const auto factor = static_cast<T>(state->grad_scale);
  if (factor == T(1)) return;  // the whole grid: nothing to do
  for_slots<T>(grid_thread(), grid_threads(), n, aligned, [&](Slot<T> slot) {
    Packet<T> packet = slot.load(x);
#pragma unroll
    for (T& element : packet.at) element *= factor;
    slot.store(x, packet);
  });
}

}  // namespace

template <class T>
void sgd_step(Context& context, const OptimTensor<T>* tensors, int64_t count,
              const SgdOptions& options, const StepState* state) {
  for_lists(tensors, count, [&](const TensorList<T>& list, int64_t chunks) {
    visit_masters(list, [&](auto masters) {
      launch(sgd_step_kernel<masters.value, T>, blocks_for(chunks, 1), kThreads, 0,
             stream_of(context), list, options, state);
    });
  });
}

template <class T>
void adam_step(Context& context, const OptimTensor<T>* tensors, int64_t count,
               const AdamOptions& options, const StepState* state) {
  for_lists(tensors, count, [&](const TensorList<T>& list, int64_t chunks) {
    visit_masters(list, [&](auto masters) {
      launch(adam_step_kernel<masters.value, T>, blocks_for(chunks, 1), kThreads, 0,
             stream_of(context), list, options, state);
    });
  });
}

template <class T>
void clip_scale(Context& context, StepState* state, T* norm, const OptimTensor<T>* tensors,
                int64_t count, NormKind kind, double max_norm) {
  const cudaStream_t stream = stream_of(context);
  int64_t total = 0;
  for (int64_t t = 0; t < count; ++t) total += (tensors[t].size + kChunk - 1) / kChunk;
  WorkspaceScope scope(context);
  double* parts = context.workspace->take<double>(total);
  int64_t done = 0;
  for_lists(tensors, count, [&](const TensorList<T>& list, int64_t chunks) {
    launch(norm_chunks_kernel<T>, blocks_for(chunks, 1), kThreads, 0, stream, parts + done, list,
           kind);
    done += chunks;
  });
  launch(clip_scale_kernel<T>, 1, kThreads, 0, stream, state, norm, parts, total, kind, max_norm);
}

template <class T>
void scale(Context& context, T* x, int64_t n, const StepState* state) {
  launch(scale_kernel<T>, blocks_for(n, kThreads, kPacket<T>), kThreads, 0, stream_of(context), x,
         n, packet_aligned(x), state);
}

#define TILEGRAD_INSTANTIATE(T)                                                                \
  template void sgd_step(Context&, const OptimTensor<T>*, int64_t, const SgdOptions&,          \
                         const StepState*);                                                    \
  template void adam_step(Context&, const OptimTensor<T>*, int64_t, const AdamOptions&,        \
                          const StepState*);                                                   \
  template void clip_scale(Context&, StepState*, T*, const OptimTensor<T>*, int64_t, NormKind, \
                           double);                                                            \
  template void scale(Context&, T*, int64_t, const StepState*);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::TILEGRAD_BACKEND
