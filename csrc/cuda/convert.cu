// SPDX-License-Identifier: MIT
// Math:        y_i = x_i, rounded where y has 16 bits.
// Shapes:      flat runs of n elements.
// Parallelism: four neighbours a thread: a packet of 16 bytes of floats, half a packet of 16-bit
//              numbers; four of them on their way at a time. Where a pointer is unaligned the
//              warp's elements go round its lanes.
// Memory:      coalesced; one element read, one written.
// Source:      none.
#include "../ops.hpp"
#include "vector_io.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kThreads = 256;

template <class To, class From>
__global__ void __launch_bounds__(kThreads)
    convert_kernel(To* y, const From* x, int64_t n, bool aligned) {
  grid_dependency_wait();
  struct alignas(4 * sizeof(From)) In {
    From at[4];
  };
  struct alignas(4 * sizeof(To)) Out {
    To at[4];
  };
  constexpr int kDepth = 4;
  const int64_t fours = aligned ? n / 4 : 0;
  for (int64_t i = grid_thread(); i < fours; i += kDepth * grid_threads()) {
    In in[kDepth];
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      const int64_t at = i + k * grid_threads();
      if (at < fours) in[k] = reinterpret_cast<const In*>(x)[at];
    }
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      const int64_t at = i + k * grid_threads();
      Out out;
#pragma unroll
      for (int j = 0; j < 4; ++j) out.at[j] = narrow<To>(widen(in[k].at[j]));
      if (at < fours) reinterpret_cast<Out*>(y)[at] = out;
    }
  }
  for (int64_t i = 4 * fours + grid_thread(); i < n; i += grid_threads()) {
    y[i] = narrow<To>(widen(x[i]));
  }
}

}  // namespace

template <class To, class From>
void convert(Context& context, To* y, const From* x, int64_t n) {
  launch_next(convert_kernel<To, From>, packet_blocks<convert_kernel<To, From>, float>(n, kThreads),
              kThreads, 0, context, y, x, n, packet_aligned(y, x));
}

template void convert(Context&, float*, const bfloat16*, int64_t);
template void convert(Context&, float*, const float16*, int64_t);
template void convert(Context&, bfloat16*, const float*, int64_t);
template void convert(Context&, float16*, const float*, int64_t);

}  // namespace tilegrad::TILEGRAD_BACKEND
