// SPDX-License-Identifier: MIT
// Math:        y = f(x);  dx = dy f'(x), with f' from x or from y (activations.hpp).
// Shapes:      flat runs of n elements.
// Parallelism: a packet of 16 bytes a thread, grid-stride; four loads on their way at a time.
// Memory:      coalesced; elements read + written: forward 1 + 1, backward 2 + 1.
// Source:      cited with each formula in activations.hpp.
#include "../ops.hpp"
#include "activation_gradient.cuh"
#include "vector_io.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kThreads = 256;

template <class T, class F>
__global__ void __launch_bounds__(kThreads, 2)
    activation_kernel(T* y, const T* x, int64_t n, bool aligned, F f) {
  grid_dependency_wait();
  const auto store = [&](Slot<T> slot, const Packet<T>& packet) {
    Numbers<T> values = widen(packet);
#pragma unroll
    for (Accumulate<T>& value : values.at) value = f.value(value);
    slot.store(y, narrow(values));
  };
  for_packets<T, 4>(grid_thread(), grid_threads(), n, aligned, store, x);
}

template <class T, class Gradient>
__global__ void __launch_bounds__(kThreads, 2)
    activation_backward_kernel(T* dx, const T* dy, const T* saved, int64_t n, bool aligned,
                               Gradient gradient) {
  grid_dependency_wait();
  const auto store = [&](Slot<T> slot, const Packet<T>& packet, const Packet<T>& basis) {
    Numbers<T> values = widen(packet);
    const Numbers<T> other = widen(basis);
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) values.at[j] = gradient(values.at[j], other.at[j]);
    slot.store(dx, narrow(values));
  };
  for_packets<T, 2>(grid_thread(), grid_threads(), n, aligned, store, dy, saved);
}

}  // namespace

template <class T>
void activation(Context& context, T* y, const T* x, int64_t n, Activation activation) {
  visit(activation, [&](auto f) {
    constexpr auto kKernel = activation_kernel<T, decltype(f)>;
    launch_next(kKernel, packet_blocks<kKernel, T>(n, kThreads), kThreads, 0, context, y, x, n,
                packet_aligned(y, x), f);
  });
}

template <class T>
void activation_backward(Context& context, T* dx, const T* dy, const T* saved, bool saved_is_output,
                         int64_t n, Activation activation) {
  if (saved == nullptr) saved = dy;  // the identity, which does not use it
  visit_gradient(activation, saved_is_output, [&](auto gradient) {
    constexpr auto kKernel = activation_backward_kernel<T, decltype(gradient)>;
    launch_next(kKernel, packet_blocks<kKernel, T>(n, kThreads), kThreads, 0, context, dx, dy,
                saved, n, packet_aligned(dx, dy, saved), gradient);
  });
}

#define TILEGRAD_INSTANTIATE(T)                                          \
  template void activation(Context&, T*, const T*, int64_t, Activation); \
  template void activation_backward(Context&, T*, const T*, const T*, bool, int64_t, Activation);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
TILEGRAD_INSTANTIATE(bfloat16)
TILEGRAD_INSTANTIATE(float16)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::TILEGRAD_BACKEND
