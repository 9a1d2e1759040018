// SPDX-License-Identifier: MIT
// Math:        a_0 = x;  a_(l+1) = f_l(a_l W_l^T + b_l), rounded to T;  y = a_layers.
// Shapes:      64 rows of kWidth columns at a time; what is narrower is padded with zeros.
// Parallelism: a block an SM goes through the rows. A warpgroup takes 64 of them through all
//              layers: the sums of a layer become the next one's operand in the same registers,
//              so that the warpgroups never meet. While one finishes its sums another multiplies;
//              its next rows are on their way meanwhile.
// Memory:      a row is read and written once, 16 bytes a thread where base and length allow
//              (kWidth 16: 8), 64 bytes of a row together; the hidden layers never leave the chip.
//              Weights and biases are read once a block and stay in shared memory.
// Source:      T. Mueller et al., Real-time Neural Radiance Caching for Path Tracing (2021),
//              section 4; PTX ISA, wgmma with operand a in registers.
#pragma once

#include "formula.cuh"
#include "tile.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

template <int kWidth>
inline constexpr int kMlpWarpgroups = kWidth == 128 ? 3 : 4;

template <class T, int kWidth>
__global__ __launch_bounds__(kMlpWarpgroups<kWidth> * 128, 1) void fused_mlp_kernel(
    const __grid_constant__ MlpProblem<T> problem) {
  grid_dependency_wait();
  const MlpShape& shape = problem.shape;
  unsigned char* const weights = dynamic_smem<unsigned char>();  // (layers, kWeight bytes)
  float* const biases = reinterpret_cast<float*>(weights + shape.layers * MlpTile<kWidth>::kWeight);
  const int64_t step = int64_t{gridDim.x} * kMlpWarpgroups<kWidth> * 64;
  int64_t first = (int64_t{blockIdx.x} * kMlpWarpgroups<kWidth> + threadIdx.x / 128) * 64;
  uint32_t next[kWidth / 4];
  load_rows<kWidth>(next, problem.x, first, shape.rows, shape.features[0]);
  load_parameters<kWidth>(weights, biases, problem.parameters, shape);
  fence_proxy_async();
  // The weights are there, for wgmma too.
  __syncthreads();
  for (; first < shape.rows; first += step) {
    uint32_t a[kWidth / 4];
    float d[kWidth / 2];
#pragma unroll
    for (int p = 0; p < kWidth / 4; ++p) a[p] = next[p];
    load_rows<kWidth>(next, problem.x, first + step, shape.rows, shape.features[0]);
#pragma unroll 1
    for (int l = 0; l < shape.layers; ++l) {
      start_sums<kWidth>(d, biases + l * kWidth);
      multiply<kWidth, T>(d, a, weights + l * MlpTile<kWidth>::kWeight);
      const bool is_last = l + 1 == shape.layers;
      finish<T>(a, d, is_last ? shape.output : shape.hidden);
      if (!is_last) clear_padding<kWidth>(a, shape.features[l + 1]);
    }
    store_rows<kWidth>(problem.y, a, first, shape.rows, shape.features[shape.layers]);
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
