// SPDX-License-Identifier: MIT
// Math:        y = x where x > 0, else w[c] x;  dx = dy f';  dw[c] = sum over x <= 0 of x dy.
// Shapes:      x (outer, channels, inner), w (channels); one channel is one slope for all.
// Parallelism: a packet of 16 bytes a thread, grid-stride; a division an element finds its channel.
// Memory:      coalesced; forward 1 + 1 elements, backward 2 + 2. w stays in L1. dw's terms go to
//              workspace and are summed by sum_axis, first over inner, in its fixed order.
// Source:      He, Zhang, Ren, Sun 2015, arXiv:1502.01852.
#include "../ops.hpp"
#include "vector_io.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kThreads = 256;

template <class T>
struct Slopes {
  const T* weight;
  int64_t channels, inner;

  __device__ Accumulate<T> at(int64_t i) const {
    return widen(weight[channels == 1 ? 0 : i / inner % channels]);
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    prelu_kernel(T* y, const T* x, int64_t n, bool aligned, Slopes<T> slopes) {
  grid_dependency_wait();
  for_slots<T>(grid_thread(), grid_threads(), n, aligned, [&](Slot<T> slot) {
    Packet<T> packet = slot.load(x);
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) {
      const auto value = widen(packet.at[j]);
      if (!(value > 0) && slot.index(j) < n) {
        packet.at[j] = narrow<T>(slopes.at(slot.index(j)) * value);
      }
    }
    slot.store(y, packet);
  });
}

// dx and terms may be null.
template <class T, class A>
__global__ void __launch_bounds__(kThreads, 1)
    prelu_backward_kernel(T* dx, A* terms, const T* dy, const T* x, int64_t n, bool aligned,
                          Slopes<T> slopes) {
  grid_dependency_wait();
  for_slots<T>(grid_thread(), grid_threads(), n, aligned, [&](Slot<T> slot) {
    Packet<T> packet = slot.load(dy);
    const Packet<T> input = slot.load(x);
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) {
      const int64_t i = slot.index(j);
      if (i >= n) continue;
      const auto value = widen(input.at[j]);
      const auto gradient = widen(packet.at[j]);
      const bool positive = value > 0;
      if (terms != nullptr) terms[i] = positive ? A(0) : value * gradient;
      if (!positive) packet.at[j] = narrow<T>(slopes.at(i) * gradient);
    }
    if (dx != nullptr) slot.store(dx, packet);
  });
}

}  // namespace

template <class T>
void prelu(Context& context, T* y, const T* x, const T* weight, ClassShape shape) {
  const int64_t n = shape.outer * shape.classes * shape.inner;
  launch_next(prelu_kernel<T>, blocks_for(n, kThreads, kPacket<T>), kThreads, 0, context, y, x, n,
              packet_aligned(y, x), Slopes<T>{weight, shape.classes, shape.inner});
}

template <class T, class G>
void prelu_backward(Context& context, T* dx, G* dweight, const T* dy, const T* x, const T* weight,
                    ClassShape shape, bool accumulate) {
  using A = Accumulate<T>;
  const auto [outer, channels, inner] = shape;
  const int64_t n = outer * channels * inner;
  WorkspaceScope scope(context);
  A* const terms = dweight == nullptr ? nullptr : context.workspace->take<A>(n);
  launch_next(prelu_backward_kernel<T, A>, blocks_for(n, kThreads, kPacket<T>), kThreads, 0,
              context, dx, terms, dy, x, n, packet_aligned(dx, dy, x),
              Slopes<T>{weight, channels, inner});
  if (dweight == nullptr) return;
  // 16-bit sums are rounded once, from float.
  A* sums = nullptr;
  if constexpr (sizeof(G) == 2) {
    sums = context.workspace->take<A>(channels);
  } else {
    sums = dweight;
  }
  const bool add = accumulate && sizeof(G) > 2;
  if (channels == 1) {
    sum_axis(context, sums, terms, 1, outer * inner, 1, add);
  } else if (inner == 1) {
    sum_axis(context, sums, terms, 1, outer, channels, add);
  } else {
    A* const rows = context.workspace->take<A>(outer * channels);
    sum_axis(context, rows, terms, outer * channels, inner, 1, false);
    sum_axis(context, sums, rows, 1, outer, channels, add);
  }
  if constexpr (sizeof(G) == 2) convert(context, dweight, sums, channels);
}

#define TILEGRAD_INSTANTIATE(T, G) \
  template void prelu_backward(Context&, T*, G*, const T*, const T*, const T*, ClassShape, bool);
TILEGRAD_INSTANTIATE(float, float)
TILEGRAD_INSTANTIATE(double, double)
TILEGRAD_INSTANTIATE(bfloat16, bfloat16)
TILEGRAD_INSTANTIATE(bfloat16, float)
TILEGRAD_INSTANTIATE(float16, float16)
TILEGRAD_INSTANTIATE(float16, float)
#undef TILEGRAD_INSTANTIATE
template void prelu(Context&, float*, const float*, const float*, ClassShape);
template void prelu(Context&, double*, const double*, const double*, ClassShape);
template void prelu(Context&, bfloat16*, const bfloat16*, const bfloat16*, ClassShape);
template void prelu(Context&, float16*, const float16*, const float16*, ClassShape);

}  // namespace tilegrad::TILEGRAD_BACKEND
