// SPDX-License-Identifier: MIT
// Math:        a_(l+1) = f_l(z_l), z_l = a_l W_l^T + b_l, again; dz_l = da_(l+1) f_l', rounded to
//              T, with f_l' from a_(l+1) or else from z_l, rounded; da_l = dz_l W_l;
//              dW_l = dz_l^T a_l; db_l = dz_l^T 1.
// Shapes:      128 rows of 64 columns at a time, zeros around what is narrower. 2 to 8 layers.
// Parallelism: a block an SM goes through the rows. Each of two warpgroups takes 64 of them through
//              all layers and back in registers; a_l and dz_l go to shared memory too, where one
//              warpgroup a layer (l mod 2) multiplies all 128 rows of them to dW_l and, by a tile
//              of ones, to db_l. These stay in registers to the end; the blocks' sums are added by
//              a second kernel in the order of the blocks, whose number is that of shape and
//              device.
// Memory:      x and dy are read and dx is written once, as in forward.cuh; a block writes (layers,
//              64, 64) floats. Shared memory without conflicts: weights, every a_l, two of dz_l,
//              and every hidden z_l that is wanted. Exception: the blocks' db_l leave 8 lanes of a
//              warp at a time, whole sectors.
// Source:      T. Mueller et al. (2021) as in forward.cuh; PTX ISA, wgmma.
#pragma once

#include "../ptx/opaque.cuh"
#include "formula.cuh"
#include "tile.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

inline constexpr int kMlpBlockRows = 128;
inline constexpr int kMlpTileBytes = kMlpBlockRows * 128;  // of 64 columns
inline constexpr int64_t kMlpLayerSums = 64 * 64 + 64;     // dW_l and db_l of a block
inline constexpr int kMlpOwned = 4;                        // layers of a warpgroup, at most

// Calls use(p, address) for the thread's pairs p of the warpgroup's rows in a tile. Eight places
// and eight more a kilobyte further, found anew each time: kept, they would take registers.
template <class Use>
__device__ inline void for_pairs(unsigned char* tile, const Use& use) {
  const auto tid = static_cast<int>(threadIdx.x);
  const int byte = (tid / 128 * 64 + fragment_row()) * 128 + tid % 4 * 4;
  const auto place = static_cast<uint32_t>(opaque(swizzle_128b(static_cast<uint32_t>(byte))));
#pragma unroll
  for (int p = 0; p < 16; ++p) {
    use(p, reinterpret_cast<uint32_t*>(tile + (place ^ static_cast<uint32_t>(p / 2 * 16)) +
                                       p % 2 * 1024));
  }
}

__device__ inline void store_in_tile(unsigned char* tile, const uint32_t (&a)[16]) {
  for_pairs(tile, [&](int p, uint32_t* at) { *at = a[p]; });
}
__device__ inline void load_from_tile(uint32_t (&a)[16], unsigned char* tile) {
  for_pairs(tile, [&](int p, const uint32_t* at) { a[p] = *at; });
}

// Rows from `left` of the warpgroup's 64 on become 0: they must not spread NaN from infinities.
__device__ inline void clear_rows(uint32_t (&a)[16], int64_t left) {
  if (left >= 64) return;
#pragma unroll
  for (int p = 0; p < 16; ++p) a[p] = fragment_row() + p % 2 * 8 < left ? a[p] : 0;
}

// d = dz W with dz's 64 rows in g; with the sums of a layer they grow by those of all 128 rows.
template <class T>
struct MlpBackProducts {
  const unsigned char *weight, *dz, *input, *ones;

  __device__ void start(float (&d)[32], const uint32_t (&g)[16]) const {
#pragma unroll
    for (int i = 0; i < 32; ++i) d[i] = 0;
    wgmma_fence();
    wgmma_chain<64, T, Major::mn>(
        d, g, [&](int step) { return wgmma_descriptor(weight + 2048 * step, 16, 1024); });
  }
  __device__ void operator()(float (&d)[32], const uint32_t (&g)[16]) const {
    start(d, g);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_settle(d);
  }
  __device__ void operator()(float (&d)[32], const uint32_t (&g)[16], float (&dw)[32],
                             float (&db)[4]) const {
    start(d, g);
#pragma unroll
    for (int step = 0; step < kMlpBlockRows / 16; ++step) {
      const uint64_t factor = wgmma_descriptor(dz + 2048 * step, 16, 1024);
      wgmma_m64k16<64, T, Major::mn, Major::mn>(dw, factor,
                                                wgmma_descriptor(input + 2048 * step, 16, 1024));
      wgmma_m64n8k16_sums<T>(db, factor, wgmma_descriptor(ones, 16, 1024));
    }
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_settle(d);
    wgmma_settle(dw);
    wgmma_settle(db);
  }
};

template <class T>
__global__ __launch_bounds__(256, 1) void fused_mlp_backward_kernel(
    const __grid_constant__ MlpProblem<T> problem, const MlpSlopes slopes, float* sums) {
  grid_dependency_wait();
  using Tile = MlpTile<64>;
  const MlpShape& shape = problem.shape;
  const int layers = shape.layers;
  // (layers, 8 KB), (layers, {a_l}), {dz}, {dz}, ones, (layers, 64) floats, (layers - 1, {z_l})
  unsigned char* const weights = dynamic_smem<unsigned char>();
  unsigned char* const inputs = weights + layers * Tile::kWeight;
  unsigned char* const gradients = inputs + layers * kMlpTileBytes;
  unsigned char* const arguments = gradients + 2 * kMlpTileBytes;
  unsigned char* const ones = arguments + mlp_argument_tiles(layers, slopes) * kMlpTileBytes;
  float* const biases = reinterpret_cast<float*>(ones + 1024);
  // The same in every lane, and the compiler knows it: wgmma may stand in its branches.
  const int warpgroup = __shfl_sync(kFullMask, static_cast<int>(threadIdx.x) / 128, 0);

  load_parameters<64>(weights, biases, problem.parameters, shape);
  reinterpret_cast<uint32_t*>(ones)[threadIdx.x] = narrow_pair<T>(1, 1);
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
      if (!(is_last ? slopes.output_uses_output : slopes.hidden_uses_output)) {
        pack_pairs<T>(a, d);
        if (is_last) break;
        store_in_tile(arguments + l * kMlpTileBytes, a);
      }
      finish<T>(a, d, is_last ? shape.output : shape.hidden);
      if (is_last) break;
      clear_padding<64>(a, shape.features[l + 1]);
      clear_rows(a, left);
    }
#pragma unroll
    for (int p = 0; p < 16; ++p) {
      d[2 * p] = low_of<T>(g[p]);
      d[2 * p + 1] = high_of<T>(g[p]);
    }
#pragma unroll 1
    for (int l = layers - 1; l >= 0; --l) {
      const bool is_last = l + 1 == layers;
      if (!is_last) {
        load_from_tile(a, slopes.hidden_uses_output ? inputs + (l + 1) * kMlpTileBytes
                                                    : arguments + l * kMlpTileBytes);
      }
      multiply_by_slope<T>(g, d, a, is_last ? shape.output : shape.hidden);
      if (is_last) {
        clear_padding<64, true>(g, shape.features[layers]);
      } else {
        clear_padding<64>(g, shape.features[l + 1]);
      }
      clear_rows(g, left);
      unsigned char* const dz = gradients + l % 2 * kMlpTileBytes;
      store_in_tile(dz, g);
      fence_proxy_async();
      // dz and a_l of all 128 rows are there; what this dz lies on was multiplied a layer ago.
      __syncthreads();
      const MlpBackProducts<T> products = {weights + l * Tile::kWeight, dz,
                                           inputs + l * kMlpTileBytes, ones};
      if (l % 2 != warpgroup) {
        products(d, g);
        continue;
      }
      // By name, so that a layer's sums are registers.
      switch (l / 2) {
        case 0:
          products(d, g, dw[0], db[0]);
          break;
        case 1:
          products(d, g, dw[1], db[1]);
          break;
        case 2:
          products(d, g, dw[2], db[2]);
          break;
        default:
          products(d, g, dw[3], db[3]);
      }
    }
    if (problem.y != nullptr) {
      pack_pairs<T>(g, d);
      store_rows<64>(problem.y, g, first, shape.rows, shape.features[0]);
    }
  }

  const int row = fragment_row(), t = static_cast<int>(threadIdx.x) % 4;
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
