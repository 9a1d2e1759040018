// SPDX-License-Identifier: MIT
// Rungs 10 and 12: Hopper's tensor cores by wgmma, fed by the copy engine (TMA), in a specialised
// block.
//
// Math:        c[b,i,j] = f(alpha sum_p a[b,i,p] b[b,p,j] + ..), sums in float, of 16-bit elements
//              or (rung 12, hopper_tf32.cu) of floats that the engine rounds to tf32.
// Shapes:      tile of c (kTileM, kTileN), 128 bytes of p a stage, a ring of 4 to 8 stages (table:
//              hopper_choice.hpp). k may be cut into pieces, whose sums split_k.cuh adds.
// Parallelism: a block an SM goes from item to item. Warpgroup 0 only copies: one thread starts the
//              TMA of a stage as soon as it is free, of the next tile while the last one is stored.
//              Warpgroups 1 and 2 only multiply, 4 wgmma a stage, the next stage's behind them:
//              their registers come from warpgroup 0 (setmaxnreg). Two blocks of a cluster have
//              tiles of 128 x 256 below each other; each fetches half of b for both.
// Memory:      a and b once a tile, c by the engine (hopper_store.cuh) or in runs of 64 elements.
//              Predicted, 128 x 256 in pairs: 128 flop a byte of L2, 32 KB a step of 1024 cycles.
//              Few rows wait for memory: 64 x 128 could take b at 64 bytes a cycle, it gives 18.
// Source:      PTX ISA, wgmma; P. Shah, Outperforming cuBLAS on H100 (fast.cu); DeepGEMM.
#pragma once

#include "../ptx/cluster.cuh"
#include "../ptx/setmaxnreg.cuh"
#include "hopper_choice.hpp"
#include "hopper_store.cuh"
#include "tensor_core.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

template <class T, int kTileM, int kTileN>
struct HopperTile {
  static constexpr int kM = kTileM, kN = kTileN, kK = 128 / sizeof(T);
  static constexpr int kConsumers = 2;  // warpgroups that multiply
  static constexpr int kThreads = (kConsumers + 1) * 128;
  // A consumer has 64 rows and all columns, or where there are only 64 rows half of the columns.
  static constexpr int kPartN = kM == 64 ? kN / 2 : kN;
  static constexpr int kCluster = hopper_choice::cluster(kN);
  static constexpr int kBytesA = kM * 128, kBytesB = kN * 128;
  static constexpr int kStageBytes = kBytesA + kBytesB;
  static constexpr int kStages = 192 * 1024 / kStageBytes;
  static constexpr int kBarrierBytes = 2 * kStages * 8;
  // A warp's two boxes, or (16, 64) floats.
  static constexpr int kWarpBytes = 4096;
  static_assert(kWarpBytes == 2 * kBoxBytes && fragment_width<kPartN / 8> == 64);
  static constexpr int kSharedBytes =
      kStages * kStageBytes + kConsumers * 4 * kWarpBytes + kBarrierBytes;
  // 40 + 2 * 232 registers for each of 128 threads: what 3 * 128 threads of 168 have.
  static constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
  // The tiles of a cluster. Of 8192^3 in tiles of 128 x 256, 132 at work in bands of h rows read
  // h * 128 rows of a and 132 / h * 256 columns of b: 5248 for h = 8, 4160 for 16 (the least), 5152
  // for 32, each of 16 KB.
  using Grid = TileGrid<kM * kCluster, kN, 16 / kCluster>;
};

// Into how many pieces k is cut, and what becomes of the sums.
struct HopperRun {
  int pieces;
  bool engine;     // pieces == 1: c leaves by the copy engine
  float* partial;  // pieces > 1: (pieces, batch, m, pitch)
  int64_t pitch;
};

// An item of work: a tile of c and the steps of kK of p from `first` to before `last`.
template <int kK>
struct HopperItem {
  TilePosition tile;
  int piece, first, last;

  // The items are at most 2^30 (hopper_choice::counts_fit).
  template <class Grid>
  __device__ HopperItem(const Grid& grid, int index, int64_t k, int pieces, int down)
      : tile(grid.at(index % static_cast<int>(grid.count))),
        piece(index / static_cast<int>(grid.count)) {
    tile.row += down;
    const int64_t steps = (k + kK - 1) / kK;
    first = static_cast<int>(piece * steps / pieces);
    last = static_cast<int>((piece + 1) * steps / pieces);
  }
};

template <class T, int kTileM, int kTileN, Major kMajorA, Major kMajorB>
__global__ __launch_bounds__(HopperTile<T, kTileM, kTileN>::kThreads,
                             1) void matmul_hopper_kernel(const MatmulProblem<T> problem,
                                                          const HopperRun run,
                                                          const __grid_constant__ HopperMaps maps) {
  grid_dependency_wait();
  using Tile = HopperTile<T, kTileM, kTileN>;
  using Item = HopperItem<Tile::kK>;
  using OperandA = HopperOperand<T, kMajorA, Tile::kM>;
  using OperandB = HopperOperand<T, kMajorB, Tile::kN>;
  using ShareB = HopperOperand<T, kMajorB, Tile::kN / Tile::kCluster>;  // what a block fetches
  // (kStages, {a, b}), scratch of the 8 warps that store, mbarriers
  unsigned char* const shared = dynamic_smem<unsigned char>();
  unsigned char* const scratch = shared + Tile::kStages * Tile::kStageBytes;
  uint64_t* const full =
      reinterpret_cast<uint64_t*>(scratch + Tile::kConsumers * 4 * Tile::kWarpBytes);
  uint64_t* const empty = full + Tile::kStages;
  const int warpgroup = static_cast<int>(threadIdx.x) / 128;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const typename Tile::Grid grid(problem.size);
  const int items = static_cast<int>(grid.count) * run.pieces;
  const int rank = Tile::kCluster == 1 ? 0 : cluster_rank();
  const int start = static_cast<int>(blockIdx.x) / Tile::kCluster;
  const int stride = static_cast<int>(gridDim.x) / Tile::kCluster;

  if (threadIdx.x == 0) {
    for (int stage = 0; stage < Tile::kStages; ++stage) {
      mbarrier_init(&full[stage], 1);  // the producer, and the bytes
      // The warps that multiply, of all blocks whose stage is filled from here.
      mbarrier_init(&empty[stage], Tile::kConsumers * 4 * Tile::kCluster);
    }
    fence_mbarrier_init();
  }
  // The mbarriers are initialised, the peer's too.
  Tile::kCluster == 1 ? __syncthreads() : cluster_sync();

  RingPosition<Tile::kStages> ring;
  if (warpgroup == 0) {
    setmaxnreg_dec<Tile::kProducerRegisters>();
    if (threadIdx.x == 0) {
      tma_prefetch_map(maps.a);
      tma_prefetch_map(maps.b);
      for (int index = start; index < items; index += stride) {
        const Item item(grid, index, problem.size.k, run.pieces, rank * Tile::kM);
        const int row = static_cast<int>(item.tile.row), col = static_cast<int>(item.tile.col);
        const int batch_a = problem.a.batch_stride == 0 ? 0 : static_cast<int>(item.tile.batch);
        const int batch_b = problem.b.batch_stride == 0 ? 0 : static_cast<int>(item.tile.batch);
        for (int step = item.first; step < item.last; ++step, ring.advance()) {
          unsigned char* const stage = shared + ring.stage * Tile::kStageBytes;
          const int p = step * Tile::kK;
          // All warps have multiplied what the stage held, here and at the peer.
          mbarrier_wait(&empty[ring.stage], ring.parity ^ 1);
          mbarrier_arrive_expect_tx(&full[ring.stage], Tile::kStageBytes);
          OperandA::load(stage, maps.a, row, p, batch_a, &full[ring.stage]);
          ShareB::template load<Tile::kCluster>(
              stage + Tile::kBytesA + rank * (Tile::kBytesB / Tile::kCluster), maps.b,
              col + rank * (Tile::kN / Tile::kCluster), p, batch_b, &full[ring.stage]);
        }
      }
    }
  } else {
    setmaxnreg_inc<Tile::kConsumerRegisters>();
    // The first row and column of this warpgroup in the tile.
    const int part_m = Tile::kM == 64 ? 0 : (warpgroup - 1) * 64;
    const int part_n = Tile::kM == 64 ? (warpgroup - 1) * Tile::kPartN : 0;
    const int warp = static_cast<int>(threadIdx.x) / 32 - 4;
    unsigned char* const own = scratch + warp * Tile::kWarpBytes;
    BoxStore<T> boxes(own);
    const auto release = [&](int stage) {
      if constexpr (Tile::kCluster == 1) {
        if (lane == 0) mbarrier_arrive(&empty[stage]);
      } else if (lane < Tile::kCluster) {
        mbarrier_return_peer(&empty[stage], lane);
      }
    };
    for (int index = start; index < items; index += stride) {
      const Item item(grid, index, problem.size.k, run.pieces, rank * Tile::kM);
      float sum[Tile::kPartN / 2] = {};  // of (64, kPartN)
      int before = 0;                    // the stage whose wgmma may still run
      for (int step = item.first; step < item.last; ++step, ring.advance()) {
        const unsigned char* const stage = shared + ring.stage * Tile::kStageBytes;
        // The bytes of both operands are there.
        mbarrier_wait(&full[ring.stage], ring.parity);
        wgmma_fence();
#pragma unroll
        for (int k32 = 0; k32 < 4; ++k32) {
          wgmma_step<Tile::kPartN, T, kMajorA, kMajorB>(
              sum, OperandA::descriptor(stage, part_m, k32),
              OperandB::descriptor(stage + Tile::kBytesA, part_n, k32));
        }
        wgmma_commit();
        if (step > item.first) {
          wgmma_wait<1>();
          release(before);
        }
        before = ring.stage;
      }
      wgmma_wait<0>();
      wgmma_settle(sum);
      release(before);
      const TilePosition first = {item.tile.batch, item.tile.row + part_m + warp % 4 * 16,
                                  item.tile.col + part_n};
      if (run.pieces > 1) {
        const int64_t matrix = problem.size.m * run.pitch;
        store_partial<Tile::kPartN>(run.partial + item.piece * problem.size.batch * matrix,
                                    run.pitch, problem.size, first, sum);
      } else if (run.engine) {
        boxes.template store<Tile::kPartN>(problem, maps, first, sum);
      } else {
        store_fragments<Tile::kPartN / 8>(
            problem, reinterpret_cast<float*>(own), first.batch, first.row, first.col,
            [&](int j, int r, int e) { return sum[4 * j + 2 * r + e]; });
      }
    }
    boxes.finish();
  }
  // No block ends while its peer may still arrive at its mbarriers.
  if constexpr (Tile::kCluster > 1) cluster_sync();
}

}  // namespace tilegrad::TILEGRAD_BACKEND
