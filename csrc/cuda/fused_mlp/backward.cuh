// SPDX-License-Identifier: MIT
// Math:        a_(l+1) = f_l(a_l W_l^T + b_l) again; dz_l = da_(l+1) f_l'(a_(l+1)), rounded to T;
//              da_l = dz_l W_l;  dW_l = dz_l^T a_l;  db_l = dz_l^T 1.
// Shapes:      128 rows of 64 columns at a time; what is narrower is padded with zeros. 2 to 8
// layers. Parallelism: a block an SM goes through the rows. Each of two warpgroups takes 64 of them
// through
//              all layers and back in registers; a_l and dz_l go to shared memory too, where one
//              warpgroup a layer (l mod 2) multiplies all 128 rows of them to dW_l and, by a tile
//              of ones, to db_l. These stay in registers to the end; the blocks' sums are added by
//              a second kernel in the order of the blocks, whose number is that of shape and
//              device.
// Memory:      x and dy are read and dx is written once, as in forward.cuh; a block writes (layers,
//              64, 64) floats. Shared memory without conflicts: weights, every a_l, two of dz_l.
//              Exception: the blocks' db_l leave 8 lanes of a warp at a time, whole sectors.
// Source:      T. Mueller et al. (2021) as in forward.cuh; PTX ISA, wgmma.
#pragma once

#include "slope.cuh"
#include "tile.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

inline constexpr int kMlpBlockRows = 128;
inline constexpr int kMlpTileBytes = kMlpBlockRows * 128;  // of 64 columns
inline constexpr int64_t kMlpLayerSums = 64 * 64 + 64;     // dW_l and db_l of a block
inline constexpr int kMlpOwned = 4;                        // layers of a warpgroup, at most

// This thread's pair p of the warpgroup's rows in a tile.
__device__ inline uint32_t* pair_in_tile(unsigned char* tile, int p) {
  const int tid = static_cast<int>(threadIdx.x);
  const int row = tid / 32 * 16 + tid % 32 / 4 + p % 2 * 8;
  const int byte = row * 128 + p / 2 * 16 + tid % 4 * 4;
  return reinterpret_cast<uint32_t*>(tile + swizzle_128b(static_cast<uint32_t>(byte)));
}

__device__ inline void store_in_tile(unsigned char* tile, const uint32_t (&a)[16]) {
#pragma unroll
  for (int p = 0; p < 16; ++p) *pair_in_tile(tile, p) = a[p];
}

// Rows from `left` of the warpgroup's 64 on become 0: they must not spread NaN from infinities.
__device__ inline void clear_rows(uint32_t (&a)[16], int64_t left) {
  const int tid = static_cast<int>(threadIdx.x) % 128;
  const int row = tid / 32 * 16 + tid % 32 / 4;
#pragma unroll
  for (int p = 0; p < 16; ++p) a[p] = row + p % 2 * 8 < left ? a[p] : 0;
}

template <class T>
__global__ __launch_bounds__(256, 1) void fused_mlp_backward_kernel(
    const __grid_constant__ MlpProblem<T> problem, float* sums) {
  grid_dependency_wait();
  using Tile = MlpTile<64>;
  const MlpShape& shape = problem.shape;
  const int layers = shape.layers;
  // (layers, 8 KB), (layers, {a_l}), {dz}, {dz}, ones, (layers, 64) floats
  unsigned char* const weights = dynamic_smem<unsigned char>();
  unsigned char* const inputs = weights + layers * Tile::kWeight;
  unsigned char* const gradients = inputs + layers * kMlpTileBytes;
  unsigned char* const ones = gradients + 2 * kMlpTileBytes;
  float* const biases = reinterpret_cast<float*>(ones + 1024);
  // The same in every lane, and the compiler knows it: wgmma may stand in its branches.
  const int warpgroup = __shfl_sync(kFullMask, static_cast<int>(threadIdx.x) / 128, 0);

  load_parameters<64>(weights, biases, problem.parameters, shape);
  reinterpret_cast<uint32_t*>(ones)[threadIdx.x] = pack<T>(1, 1);
  float dw[kMlpOwned][32] = {};  // (64, 64) of layers 2 slot + warpgroup
  float db[kMlpOwned][4] = {};   // (64, 8): the same in every column
  for (int64_t block = blockIdx.x; block * kMlpBlockRows < shape.rows; block += gridDim.x) {
    const int64_t first = block * kMlpBlockRows + warpgroup * 64;
    const int64_t left = shape.rows - first;
    uint32_t a[16], g[16];
    float d[32];
    load_rows<64>(a, problem.x, first, shape.rows, shape.features[0]);
    load_rows<64>(g, problem.dy, first, shape.rows, shape.features[layers]);
    // The weights are there; the last block's tiles have been multiplied.
    fence_proxy_async();
    __syncthreads();
#pragma unroll 1
    for (int l = 0; l < layers; ++l) {
      store_in_tile(inputs + l * kMlpTileBytes, a);
      const bool is_last = l + 1 == layers;
      if (is_last && shape.output.kind == ActivationKind::identity) break;
      start_sums<64>(d, biases + l * 64);
      multiply<64, T>(d, a, weights + l * Tile::kWeight);
      finish<64, T>(a, d, is_last ? shape.output : shape.hidden);
      if (!is_last && shape.features[l + 1] < 64) clear_padding<64>(a, shape.features[l + 1]);
      if (left < 64) clear_rows(a, left);
    }
    if (shape.output.kind != ActivationKind::identity) {
#pragma unroll
      for (int p = 0; p < 16; ++p) {
        d[2 * p] = low_of<T>(g[p]);
        d[2 * p + 1] = high_of<T>(g[p]);
      }
      differentiate<T>(g, d, a, shape.output);
      if (left < 64) clear_rows(g, left);
    }
    // Unrolled, so that a layer's sums are registers by name.
#pragma unroll
    for (int l = 2 * kMlpOwned - 1; l >= 0; --l) {
      if (l >= layers) continue;
      unsigned char* const dz = gradients + l % 2 * kMlpTileBytes;
      unsigned char* const input = inputs + l * kMlpTileBytes;
      store_in_tile(dz, g);
      fence_proxy_async();
      // dz and a_l of all 128 rows are there; what this dz lies on was multiplied a layer ago.
      __syncthreads();
#pragma unroll
      for (int i = 0; i < 32; ++i) d[i] = 0;
      const auto descriptor = [&](int step) {
        return wgmma_descriptor(weights + l * Tile::kWeight + 2048 * step, 16, 1024);
      };
      if (l % 2 == warpgroup) {
        wgmma_fence();
        wgmma_chain<64, T, Major::mn>(d, g, descriptor);
#pragma unroll
        for (int step = 0; step < kMlpBlockRows / 16; ++step) {
          const uint64_t factor = wgmma_descriptor(dz + 2048 * step, 16, 1024);
          wgmma_m64k16<64, T, Major::mn, Major::mn>(
              dw[l / 2], factor, wgmma_descriptor(input + 2048 * step, 16, 1024));
          wgmma_m64n8k16_sums<T>(db[l / 2], factor, wgmma_descriptor(ones, 16, 1024));
        }
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_settle(dw[l / 2]);
        wgmma_settle(db[l / 2]);
      } else {
        wgmma_fence();
        wgmma_chain<64, T, Major::mn>(d, g, descriptor);
        wgmma_commit();
        wgmma_wait<0>();
      }
      wgmma_settle(d);
      if (l == 0) continue;
#pragma unroll
      for (int p = 0; p < 16; ++p) a[p] = *pair_in_tile(input, p);
      differentiate<T>(g, d, a, shape.hidden);
      if (shape.features[l] < 64) clear_padding<64>(g, shape.features[l]);
      if (left < 64) clear_rows(g, left);
    }
    if (problem.y != nullptr) {
#pragma unroll
      for (int p = 0; p < 16; ++p) g[p] = pack<T>(d[2 * p], d[2 * p + 1]);
      store_rows<64>(problem.y, g, first, shape.rows, shape.features[0]);
    }
  }

  const int tid = static_cast<int>(threadIdx.x) % 128, t = tid % 4;
  const int row = tid / 32 * 16 + tid % 32 / 4;
#pragma unroll
  for (int slot = 0; slot < kMlpOwned; ++slot) {
    const int l = 2 * slot + warpgroup;
    if (l >= layers) continue;
    float* const to = sums + (int64_t{blockIdx.x} * layers + l) * kMlpLayerSums;
#pragma unroll
    for (int p = 0; p < 16; ++p) {
      float2* const at = reinterpret_cast<float2*>(to + (row + p % 2 * 8) * 64 + p / 2 * 8 + 2 * t);
      *at = float2{dw[slot][2 * p], dw[slot][2 * p + 1]};
    }
    if (t == 0) {
      to[64 * 64 + row] = db[slot][0];
      to[64 * 64 + row + 8] = db[slot][2];
    }
  }
}

// The gradients of layer blockIdx.y: the blocks' sums in the order of the blocks.
template <class G>
__global__ void __launch_bounds__(256)
    fused_mlp_sum_kernel(MlpArrays<G> gradients, const float* sums, int blocks,
                         const __grid_constant__ MlpShape shape, bool accumulate) {
  grid_dependency_wait();
  const int index = static_cast<int>(blockIdx.x * 256 + threadIdx.x);
  const int l = static_cast<int>(blockIdx.y);
  if (index >= kMlpLayerSums) return;
  const bool is_weight = index < 64 * 64;
  const int o = is_weight ? index / 64 : index - 64 * 64, i = is_weight ? index % 64 : 0;
  const int64_t in = shape.features[l], out = shape.features[l + 1];
  G* const to = is_weight ? gradients.weight[l] : gradients.bias[l];
  if (to == nullptr || o >= out || i >= in) return;
  const int row = l + 1 == shape.layers ? fragment_column<64>(o) : o;
  const int col = l == 0 ? fragment_column<64>(i) : i;
  const float* from = sums + l * kMlpLayerSums + (is_weight ? row * 64 + col : 64 * 64 + row);
  double total = 0;
#pragma unroll 8
  for (int block = 0; block < blocks; ++block) {
    total += from[block * (shape.layers * kMlpLayerSums)];
  }
  G& at = to[is_weight ? o * in + i : o];
  if (accumulate) total += widen(at);
  at = narrow<G>(static_cast<float>(total));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
