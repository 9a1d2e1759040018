// SPDX-License-Identifier: MIT
// How rungs 10 and 12 start: tile and pieces by hopper_choice.hpp, the maps of the copy engine, and
// where k is in pieces the kernel that joins them.
#pragma once

#include <algorithm>

#include "hopper.cuh"
#include "hopper_layout.hpp"
#include "split_k.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// May c, and what is kept beside it, leave by the copy engine? It cannot add to what is there, and
// what a layer below saved is read by the lanes that store.
template <class T>
bool hopper_leaves_by_engine(const MatmulProblem<T>& problem) {
  const MatmulSize& size = problem.size;
  T* const kept = problem.epilogue.preactivation;
  return problem.beta == 0 && problem.wide.data == nullptr && problem.below.saved == nullptr &&
         problem.below.sums == nullptr && engine_writes(problem.c, size) &&
         (kept == nullptr || engine_writes<T>({kept, size.n, 1, size.m * size.n}, size));
}

template <class T, int kTileM, int kTileN, Major kMajorA, Major kMajorB>
void start_hopper(Context& context, const MatmulProblem<T>& problem, const HopperRun& run) {
  using Tile = HopperTile<T, kTileM, kTileN>;
  const auto &a = problem.a, &b = problem.b;
  const MatmulSize& size = problem.size;
  // A matrix that every batch shares is one matrix to the copy engine.
  const auto count = [&](int64_t stride) { return stride == 0 ? 1 : size.batch; };
  HopperMaps maps = {};
  maps.a = HopperOperand<T, kMajorA, Tile::kM>::map(
      a.data, a.row_stride, a.col_stride, a.batch_stride, size.m, size.k, count(a.batch_stride));
  maps.b = HopperOperand<T, kMajorB, Tile::kN / Tile::kCluster>::map(
      b.data, b.col_stride, b.row_stride, b.batch_stride, size.n, size.k, count(b.batch_stride));
  if (run.engine) {
    maps.c = box_map<T>(problem.c, size);
    T* const kept = problem.epilogue.preactivation;
    if (kept != nullptr) {
      maps.preactivation = box_map<T>({kept, size.n, 1, size.m * size.n}, size);
    }
  }
  const int64_t clusters = std::min<int64_t>(typename Tile::Grid(size).count * run.pieces,
                                             device_info().multiprocessors / Tile::kCluster);
  launch_next(matmul_hopper_kernel<T, kTileM, kTileN, kMajorA, kMajorB>,
              LaunchShape{.grid = dim3(static_cast<unsigned>(clusters * Tile::kCluster)),
                          .block = dim3(Tile::kThreads),
                          .dynamic_bytes = Tile::kSharedBytes,
                          .cluster = Tile::kCluster},
              context, problem, run, maps);
}

template <class T, int kTileM, int kTileN>
void start_hopper(Context& context, const MatmulProblem<T>& problem, const HopperRun& run) {
  if constexpr (sizeof(T) == 4) {
    start_hopper<T, kTileM, kTileN, Major::k, Major::k>(context, problem, run);
    return;
  } else {
    const bool k_major_a = problem.a.col_stride == 1, k_major_b = problem.b.row_stride == 1;
    if (k_major_a && k_major_b) {
      start_hopper<T, kTileM, kTileN, Major::k, Major::k>(context, problem, run);
    } else if (k_major_a) {
      start_hopper<T, kTileM, kTileN, Major::k, Major::mn>(context, problem, run);
    } else if (k_major_b) {
      start_hopper<T, kTileM, kTileN, Major::mn, Major::k>(context, problem, run);
    } else {
      start_hopper<T, kTileM, kTileN, Major::mn, Major::mn>(context, problem, run);
    }
  }
}

// The engine reads both operands as they are.
template <class T>
void start_hopper(Context& context, const MatmulProblem<T>& problem) {
  const auto& [batch, m, n, k] = problem.size;
  const HopperChoice choice = choose_hopper(problem.size, device_info().multiprocessors, sizeof(T));
  const WorkspaceScope scope(context);
  HopperRun run = {choice.pieces, choice.pieces == 1 && hopper_leaves_by_engine(problem), nullptr,
                   (n + 7) / 8 * 8};
  const int64_t sums = batch * m * run.pitch;
  if (run.pieces > 1) run.partial = context.workspace->take<float>(run.pieces * sums);
  if (choice.tile_n == 256) {
    start_hopper<T, 128, 256>(context, problem, run);
  } else if (choice.tile_m == 128) {
    start_hopper<T, 128, 128>(context, problem, run);
  } else {
    start_hopper<T, 64, 128>(context, problem, run);
  }
  if (run.pieces > 1) {
    launch_next(matmul_join_kernel<T>, dim3(blocks_for(sums / 4, kJoinThreads)), dim3(kJoinThreads),
                0, context, problem, run.partial, run.pieces, run.pitch);
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
