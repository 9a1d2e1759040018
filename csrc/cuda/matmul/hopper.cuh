// SPDX-License-Identifier: MIT
// Rung 10: Hopper's tensor cores by wgmma, fed by the copy engine (TMA), in a specialised block.
//
// Math:        c[b,i,j] = f(alpha sum_p a[b,i,p] b[b,p,j] + ..) of 16-bit elements, sums in float.
// Shapes:      tile of c (128, kTileN), of a (128, 64), of b (64, kTileN); a ring of 4 stages.
// Parallelism: a block an SM goes from tile to tile. Warpgroup 0 only copies: one thread of it
//              starts the TMA of a stage as soon as the stage is free. Warpgroups 1 and 2 only
//              multiply, (64, kTileN) each, 4 wgmma a stage, the next stage's behind them: their
//              registers come from warpgroup 0 (setmaxnreg).
// Memory:      a and b once a tile, straight to shared memory in the 128-byte swizzle that wgmma
//              reads without bank conflicts; what lies outside an operand arrives as zeros. 160 KB
//              (kTileN = 128) or 224 KB of shared memory. c leaves in runs of 64 elements.
//              Row-major and column-major operands are read as they are (Major).
// Source:      PTX ISA, wgmma and cp.async.bulk.tensor; P. Shah, Outperforming cuBLAS on H100
//              (fast.cu); DeepGEMM.
#pragma once

#include "../ptx/fence.cuh"
#include "../ptx/mbarrier.cuh"
#include "../ptx/setmaxnreg.cuh"
#include "../ptx/tma.cuh"
#include "../ptx/wgmma.cuh"
#include "tensor_core.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

template <int kTileN>
struct HopperTile {
  static constexpr int kM = 128, kN = kTileN, kK = 64;
  static constexpr int kConsumers = 2;  // warpgroups that multiply
  static constexpr int kThreads = (kConsumers + 1) * 128;
  static constexpr int kStages = 4;
  static constexpr int kBytesA = kM * kK * 2, kBytesB = kN * kK * 2;
  static constexpr int kStageBytes = kBytesA + kBytesB;
  static constexpr int kBarrierBytes = 2 * kStages * 8;
  static constexpr int kScratchBytes = kConsumers * 4 * 16 * fragment_width<kN / 8> * 4;
  static constexpr int kSharedBytes = kStages * kStageBytes + kScratchBytes + kBarrierBytes;
  // 40 + 2 * 232 registers for each of 128 threads: what 3 * 128 threads of 168 have.
  static constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
  using Grid = TileGrid<kM, kN, 8>;
};

// 256 columns a tile take fewer bytes a product; 128 where that would leave half of the device's
// multiprocessors without a tile, or half of every tile outside c.
inline int hopper_tile_n(const MatmulSize& size, int multiprocessors) {
  const bool enough = TileGrid<128, 256>(size).count * 2 > multiprocessors;
  const int64_t rest = size.n % 256;
  return enough && (rest == 0 || rest > 128 || size.n > 1024) ? 256 : 128;
}

// An operand tile of kX rows or columns and 64 of p. A k-major tile is one box of kX rows of 64 p.
// An mn-major tile is kX / 64 slabs of 8 KB, each a box of 64 rows (p) of 64 x.
template <Major kMajor, int kX>
struct HopperOperand {
  static constexpr int kSlab = 64 * 64 * 2;

  static TensorMap map(const void* data, int64_t x_stride, int64_t p_stride, int64_t batch_stride,
                       int64_t x_count, int64_t k, int64_t batch) {
    if constexpr (kMajor == Major::k) {
      return make_tensor_map(data,
                             {3, {k, x_count, batch}, {1, x_stride, batch_stride}, {64, kX, 1}});
    } else {
      return make_tensor_map(data,
                             {3, {x_count, k, batch}, {1, p_stride, batch_stride}, {64, 64, 1}});
    }
  }

  // Starts the copies of the tile at (x, p) of matrix z.
  __device__ static void load(unsigned char* tile, const TensorMap& map, int x, int p, int z,
                              uint64_t* full) {
    if constexpr (kMajor == Major::k) {
      tma_load_3d(tile, map, p, x, z, full);
    } else {
#pragma unroll
      for (int slab = 0; slab < kX / 64; ++slab) {
        tma_load_3d(tile + slab * kSlab, map, x + 64 * slab, p, z, full);
      }
    }
  }

  // Of the tile from x on (a multiple of 64) and the step-th 16 of p.
  __device__ static uint64_t descriptor(const unsigned char* tile, int x, int step) {
    const unsigned char* const start = tile + x / 64 * kSlab;
    return kMajor == Major::k ? wgmma_descriptor(start + 32 * step, 16, 1024)
                              : wgmma_descriptor(start + 2048 * step, kSlab, 1024);
  }
};

// Where a role is in the ring: the stage, and the parity of the phase that it is in.
template <int kStages>
struct RingPosition {
  int stage = 0;
  uint32_t parity = 0;

  __device__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

template <class T, int kTileN, Major kMajorA, Major kMajorB>
__global__ __launch_bounds__(HopperTile<kTileN>::kThreads,
                             1) void matmul_hopper_kernel(const MatmulProblem<T> problem,
                                                          const __grid_constant__ TensorMap map_a,
                                                          const __grid_constant__ TensorMap map_b) {
  using Tile = HopperTile<kTileN>;
  using OperandA = HopperOperand<kMajorA, Tile::kM>;
  using OperandB = HopperOperand<kMajorB, Tile::kN>;
  // (kStages, {a, b}), scratch of the 8 warps that store, mbarriers
  unsigned char* const shared = dynamic_smem<unsigned char>();
  unsigned char* const scratch = shared + Tile::kStages * Tile::kStageBytes;
  uint64_t* const full = reinterpret_cast<uint64_t*>(scratch + Tile::kScratchBytes);
  uint64_t* const empty = full + Tile::kStages;
  const int warpgroup = static_cast<int>(threadIdx.x) / 128;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t steps = (problem.size.k + Tile::kK - 1) / Tile::kK;
  const typename Tile::Grid grid(problem.size);

  if (threadIdx.x == 0) {
    for (int stage = 0; stage < Tile::kStages; ++stage) {
      mbarrier_init(&full[stage], 1);                      // the producer, and its bytes
      mbarrier_init(&empty[stage], Tile::kConsumers * 4);  // the warps that multiply
    }
    fence_mbarrier_init();
  }
  // The mbarriers are initialised.
  __syncthreads();

  RingPosition<Tile::kStages> ring;
  if (warpgroup == 0) {
    setmaxnreg_dec<Tile::kProducerRegisters>();
    if (threadIdx.x == 0) {
      tma_prefetch_map(map_a);
      tma_prefetch_map(map_b);
      for (int64_t index = blockIdx.x; index < grid.count; index += gridDim.x) {
        const TilePosition tile = grid.at(index);
        const int row = static_cast<int>(tile.row), col = static_cast<int>(tile.col);
        const int batch_a = problem.a.batch_stride == 0 ? 0 : static_cast<int>(tile.batch);
        const int batch_b = problem.b.batch_stride == 0 ? 0 : static_cast<int>(tile.batch);
        for (int64_t step = 0; step < steps; ++step, ring.advance()) {
          unsigned char* const stage = shared + ring.stage * Tile::kStageBytes;
          const int p = static_cast<int>(step) * Tile::kK;
          // All warps have multiplied what the stage held.
          mbarrier_wait(&empty[ring.stage], ring.parity ^ 1);
          mbarrier_arrive_expect_tx(&full[ring.stage], Tile::kStageBytes);
          OperandA::load(stage, map_a, row, p, batch_a, &full[ring.stage]);
          OperandB::load(stage + Tile::kBytesA, map_b, col, p, batch_b, &full[ring.stage]);
        }
      }
    }
  } else {
    setmaxnreg_inc<Tile::kConsumerRegisters>();
    const int part = (warpgroup - 1) * 64;  // the first row of this warpgroup in the tile
    for (int64_t index = blockIdx.x; index < grid.count; index += gridDim.x) {
      const TilePosition tile = grid.at(index);
      float sum[kTileN / 2] = {};  // of (64, kTileN)
      int before = 0;              // the stage whose wgmma may still run
      for (int64_t step = 0; step < steps; ++step, ring.advance()) {
        const unsigned char* const stage = shared + ring.stage * Tile::kStageBytes;
        // The bytes of both operands are there.
        mbarrier_wait(&full[ring.stage], ring.parity);
        wgmma_fence();
#pragma unroll
        for (int k16 = 0; k16 < Tile::kK / 16; ++k16) {
          wgmma_m64k16<kTileN, T, kMajorA, kMajorB>(
              sum, OperandA::descriptor(stage, part, k16),
              OperandB::descriptor(stage + Tile::kBytesA, 0, k16));
        }
        wgmma_commit();
        if (step > 0) {
          wgmma_wait<1>();
          if (lane == 0) mbarrier_arrive(&empty[before]);
        }
        before = ring.stage;
      }
      wgmma_wait<0>();
      wgmma_settle(sum);
      if (lane == 0) mbarrier_arrive(&empty[before]);
      const int warp = static_cast<int>(threadIdx.x) / 32 - 4;
      store_fragments<kTileN / 8>(
          problem, reinterpret_cast<float*>(scratch) + warp * 16 * fragment_width<kTileN / 8>,
          tile.batch, tile.row + warp * 16, tile.col,
          [&](int j, int r, int e) { return sum[4 * j + 2 * r + e]; });
    }
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
