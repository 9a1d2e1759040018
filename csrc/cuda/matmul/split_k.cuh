// SPDX-License-Identifier: MIT
// The second half of a product whose sum over k was cut into pieces.
//
// Math:        c[b,i,j] = f(alpha (s_0 + s_1 + ..) + ..), the pieces added in their order.
// Shapes:      partial (pieces, batch, m, pitch) of floats, pitch a multiple of 8.
// Parallelism: a thread 4 columns of a row, grid-stride.
// Memory:      16 bytes a load, coalesced, 4 of them on their way; c in groups of 4 elements. The
//              pieces were just written and mostly lie in L2. Exception: bias and preactivation
//              go an element at a time, 4.0x the sectors of a row of each.
#pragma once

#include "../vector_io.cuh"
#include "epilogue.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

inline constexpr int kJoinThreads = 256;

template <class T>
__global__ __launch_bounds__(kJoinThreads) void matmul_join_kernel(const MatmulProblem<T> problem,
                                                                   const float* partial, int pieces,
                                                                   int64_t pitch) {
  grid_dependency_wait();
  const auto& [batch, m, n, k] = problem.size;
  const int64_t groups = batch * m * (pitch / 4);
  for (int64_t group = int64_t{blockIdx.x} * kJoinThreads + threadIdx.x; group < groups;
       group += int64_t{gridDim.x} * kJoinThreads) {
    float sum[4];
    load_group(sum, partial + 4 * group);
#pragma unroll 4
    for (int piece = 1; piece < pieces; ++piece) {
      float next[4];
      load_group(next, partial + 4 * (piece * groups + group));
#pragma unroll
      for (int e = 0; e < 4; ++e) sum[e] += next[e];
    }
    const int64_t row = group / (pitch / 4), col = group % (pitch / 4) * 4;
    if (col < n) {
      store_tile<ThreadAxis<1, 1, 1>, ThreadAxis<4, 4, 4>>(problem, row / m, row % m, col, sum);
    }
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
