// SPDX-License-Identifier: MIT
// What becomes of the sums of a tile in a step by one kernel.
//
// Math:        forward: z = sum + b, y = f(z); input gradient: dz = sum f'; update: W by its rule.
// Shapes:      of TileSums; elements outside (rows, cols) are left out.
// Parallelism: the threads of the block go along a row of the tile; 4 elements a thread are loaded
//              before the first of them is used. The activations' switch is a call.
// Memory:      coalesced; W and the optimiser's buffers are read and written once a step.
#pragma once

#include "../matmul/epilogue.cuh"
#include "tile.cuh"
//
#include "../../optim_constants.hpp"

namespace tilegrad::TILEGRAD_BACKEND::step {

inline constexpr int kBatch = 4;

// The matrix in which a tile lies, its first element at (i, j).
struct TileOf {
  int i, j, rows, cols;

  // Of element e of the tile, or -1 outside.
  __device__ int offset(const TileSums& sums, int e) const {
    const int row = i + sums.row(e), col = j + sums.col(e);
    return e < sums.count() && row < rows && col < cols ? row * cols + col : -1;
  }
};

__device__ inline void finish_forward(const TileSums& sums, const TileOf& tile,
                                      const StepLayer& layer) {
#pragma unroll 1
  for (int e = static_cast<int>(threadIdx.x); e < sums.count(); e += kThreads) {
    const int at = tile.offset(sums, e);
    float sum[1];
    sums.get(sum, e);
    if (at < 0) continue;
    float z = sum[0];
    if (layer.bias.data != nullptr) z += layer.bias.data[tile.j + sums.col(e)];
    if (layer.z != nullptr) layer.z[at] = z;
    if (layer.y != layer.z) layer.y[at] = activate_apart(layer.activation, z);
  }
}

// dz of the layer `below`, the sums' rows and columns.
__device__ inline void finish_input_gradient(const TileSums& sums, const TileOf& tile,
                                             const StepLayer& below) {
  for (int first = static_cast<int>(threadIdx.x); first < sums.count();
       first += kBatch * kThreads) {
    float dy[kBatch], saved[kBatch];
#pragma unroll
    for (int r = 0; r < kBatch; ++r) {
      const int at = tile.offset(sums, first + r * kThreads);
      saved[r] = at < 0 ? 0 : below.saved[at];
    }
    sums.get(dy, first);
#pragma unroll 1
    for (int r = 0; r < kBatch; ++r, rotate<1>(dy), rotate<1>(saved)) {
      const int at = tile.offset(sums, first + r * kThreads);
      if (at < 0) continue;
      below.dz[at] = differentiate_apart(below.activation, below.from_output, dy[0], saved[0]);
    }
  }
}

// The optimiser's rule for kCount elements of a tensor at at[r], -1 for none.
template <int kCount, class Constants>
__device__ inline void update_elements(const OptimTensor<float>& tensor, const Constants& c,
                                       const int (&at)[kCount], const float (&grad)[kCount]) {
  const Kept kept = kept_by<float>(c);
  float w[kCount];
  Buffers<float> buffers[kCount];
#pragma unroll
  for (int r = 0; r < kCount; ++r) {
    w[r] = at[r] < 0 ? 0 : tensor.data[at[r]];
    buffers[r].first = at[r] < 0 || !kept.first ? 0 : tensor.first[at[r]];
    buffers[r].second = at[r] < 0 || !kept.second ? 0 : tensor.second[at[r]];
    buffers[r].third = at[r] < 0 || !kept.third ? 0 : tensor.third[at[r]];
  }
#pragma unroll
  for (int r = 0; r < kCount; ++r) {
    if (at[r] < 0) continue;
    tensor.data[at[r]] = updated(c, w[r], grad[r], buffers[r]);
    if (kept.first) tensor.first[at[r]] = buffers[r].first;
    if (kept.second) tensor.second[at[r]] = buffers[r].second;
    if (kept.third) tensor.third[at[r]] = buffers[r].third;
  }
}

template <class Constants>
__device__ inline void finish_weight(const TileSums& sums, const TileOf& tile,
                                     const OptimTensor<float>& weight, const Constants& c) {
  for (int first = static_cast<int>(threadIdx.x); first < sums.count();
       first += kBatch * kThreads) {
    int at[kBatch];
    float grad[kBatch];
#pragma unroll
    for (int r = 0; r < kBatch; ++r) at[r] = tile.offset(sums, first + r * kThreads);
    sums.get(grad, first);
    update_elements(weight, c, at, grad);
  }
}

// kBiasColumns elements of a bias: a lane has a column, a warp every 8th row; the warps' sums are
// added in order.
template <class Constants>
__device__ inline void update_bias(float* shared, const StepLayer& layer, int rows, int first_col,
                                   const Constants& c) {
  constexpr int kWarps = kThreads / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int col = first_col + lane;
  const auto out = static_cast<int>(layer.out);
  const bool inside = col < out;
  double* const partial = reinterpret_cast<double*>(shared);  // (kWarps, 32)
  double sum = 0;
#pragma unroll 8
  for (int row = warp; row < rows; row += kWarps) {
    sum += static_cast<double>(inside ? layer.dz[row * out + col] : 0.0f);
  }
  // Who read the shared memory before is done with it.
  __syncthreads();
  partial[warp * kWarpSize + lane] = sum;
  // Every warp's sums are written.
  __syncthreads();
  if (warp != 0) return;
  for (int w = 1; w < kWarps; ++w) sum += partial[w * kWarpSize + lane];
  const int at[1] = {inside ? col : -1};
  const float grad[1] = {static_cast<float>(sum)};
  update_elements(layer.bias, c, at, grad);
}

}  // namespace tilegrad::TILEGRAD_BACKEND::step
