// SPDX-License-Identifier: MIT
// Copies a matrix of 16-bit elements so that Hopper's copy engine can read it.
//
// Math:        y[z, line, i] = x[z, line, i]; each line of y starts at a multiple of 16 bytes.
// Shapes:      count matrices of `lines` x `length`; a line of y is `pitch` elements long, a
//              multiple of 8. What lies between is not written: the engine cuts at the length.
// Parallelism: a warp 128 elements of a line, a lane every 32nd.
// Memory:      coalesced, 4 loads on their way. 64 bytes of a line that starts anywhere may lie in
//              3 sectors instead of 2. Where no axis of x is contiguous, a sector an element.
#pragma once

#include "../launch.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

inline constexpr int kPadThreads = 256, kPadRun = 128;

// Strides of x: from matrix to matrix, line to line, element to element.
struct PadShape {
  int64_t count, lines, length, pitch;
  int64_t matrix_stride, line_stride, stride;
};

template <class T>
__global__ __launch_bounds__(kPadThreads) void pad_lines_kernel(T* y, const T* x, PadShape s) {
  grid_dependency_wait();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t runs = (s.length + kPadRun - 1) / kPadRun;
  const int64_t warps = int64_t{gridDim.x} * (kPadThreads / 32);
  for (int64_t item = int64_t{blockIdx.x} * (kPadThreads / 32) + threadIdx.x / 32;
       item < s.count * s.lines * runs; item += warps) {
    const int64_t line = item / runs, first = item % runs * kPadRun + lane;
    const T* const from = x + line / s.lines * s.matrix_stride + line % s.lines * s.line_stride;
    T value[kPadRun / 32];
#pragma unroll
    for (int j = 0; j < kPadRun / 32; ++j) {
      const int64_t i = first + 32 * j;
      value[j] = i < s.length ? from[i * s.stride] : T{};
    }
#pragma unroll
    for (int j = 0; j < kPadRun / 32; ++j) {
      const int64_t i = first + 32 * j;
      if (i < s.length) y[line * s.pitch + i] = value[j];
    }
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
