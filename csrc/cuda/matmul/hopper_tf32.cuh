// SPDX-License-Identifier: MIT
// Rung 12: float32 as tf32 on Hopper's tensor cores by wgmma, fed by the copy engine (TMA).
//
// Math:        c[b,i,j] = f(alpha sum_p a[b,i,p] b[b,p,j] + ..), operands rounded to tf32 (10 bits
//              of significand) by the engine: to nearest, ties to even; sums in float.
// Shapes:      tile of c (128, kTileN), of a (128, 32), of b (32, kTileN); a ring of 4 stages.
// Parallelism: as rung 10: a block an SM goes from tile to tile, warpgroup 0 copies, warpgroups 1
//              and 2 multiply (64, kTileN) each, 4 wgmma a stage.
// Memory:      wgmma takes 4-byte elements k-major only: each operand is contiguous along p. Others
//              are transposed into workspace first (hopper_tf32.cu). 128-byte rows, swizzled; what
//              lies outside arrives as zeros. Bytes and bytes a cycle are those of rung 10: half
//              the elements a stage, half the rate. c leaves in runs of 64 floats. Predicted at
//              4096^3: 0.3 ms at 1024 fma a cycle and SM, 48 KB of L2 a 1024 cycles.
// Source:      PTX ISA, wgmma and cp.async.bulk.tensor.
#pragma once

#include "hopper.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

template <int kTileN>
struct HopperTf32Tile {
  static constexpr int kM = 128, kN = kTileN, kK = 32;
  static constexpr int kConsumers = 2;  // warpgroups that multiply
  static constexpr int kThreads = (kConsumers + 1) * 128;
  static constexpr int kStages = 4;
  static constexpr int kBytesA = kM * kK * 4, kBytesB = kN * kK * 4;
  static constexpr int kStageBytes = kBytesA + kBytesB;
  static constexpr int kBarrierBytes = 2 * kStages * 8;
  static constexpr int kScratchBytes = kConsumers * 4 * 16 * fragment_width<kN / 8> * 4;
  static constexpr int kSharedBytes = kStages * kStageBytes + kScratchBytes + kBarrierBytes;
  // 40 + 2 * 232 registers for each of 128 threads: what 3 * 128 threads of 168 have.
  static constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
  using Grid = TileGrid<kM, kN, 8>;
};

// Of a tile's rows (p contiguous, 32 of them) from x on, a multiple of 8, the step-th 8 of p.
__device__ inline uint64_t tf32_descriptor(const unsigned char* tile, int x, int step) {
  return wgmma_descriptor(tile + x * 128 + step * 32, 16, 1024);
}

template <int kTileN>
__global__ __launch_bounds__(HopperTf32Tile<kTileN>::kThreads, 1) void matmul_hopper_tf32_kernel(
    const MatmulProblem<float> problem, const __grid_constant__ TensorMap map_a,
    const __grid_constant__ TensorMap map_b) {
  grid_dependency_wait();
  using Tile = HopperTf32Tile<kTileN>;
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
          tma_load_3d(stage, map_a, p, row, batch_a, &full[ring.stage]);
          tma_load_3d(stage + Tile::kBytesA, map_b, p, col, batch_b, &full[ring.stage]);
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
        for (int k8 = 0; k8 < Tile::kK / 8; ++k8) {
          wgmma_m64k8_tf32<kTileN>(sum, tf32_descriptor(stage, part, k8),
                                   tf32_descriptor(stage + Tile::kBytesA, 0, k8));
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
