// SPDX-License-Identifier: MIT
#include "hopper.cuh"

#include <algorithm>

#include "hopper_layout.hpp"
#include "split_k.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

// May c, and what is kept beside it, leave by the copy engine? It cannot add to what is there, and
// what a layer below saved is read by the lanes that store.
template <class T>
bool leaves_by_engine(const MatmulProblem<T>& problem) {
  const MatmulSize& size = problem.size;
  T* const kept = problem.epilogue.preactivation;
  return problem.beta == 0 && problem.wide.data == nullptr && problem.below.saved == nullptr &&
         problem.below.sums == nullptr && engine_writes(problem.c, size) &&
         (kept == nullptr || engine_writes<T>({kept, size.n, 1, size.m * size.n}, size));
}

template <class T, int kTileM, int kTileN, Major kMajorA, Major kMajorB>
void start(Context& context, const MatmulProblem<T>& problem, const HopperRun& run) {
  using Tile = HopperTile<kTileM, kTileN>;
  const auto &a = problem.a, &b = problem.b;
  const MatmulSize& size = problem.size;
  // A matrix that every batch shares is one matrix to the copy engine.
  const auto count = [&](int64_t stride) { return stride == 0 ? 1 : size.batch; };
  const auto step = [](int64_t stride, int64_t any) { return stride == 0 ? any : stride; };
  HopperMaps maps = {};
  maps.a = HopperOperand<kMajorA, Tile::kM>::map(a.data, a.row_stride, a.col_stride,
                                                 step(a.batch_stride, 8), size.m, size.k,
                                                 count(a.batch_stride));
  maps.b = HopperOperand<kMajorB, Tile::kN / Tile::kCluster>::map(
      b.data, b.col_stride, b.row_stride, step(b.batch_stride, 8), size.n, size.k,
      count(b.batch_stride));
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
void start(Context& context, const MatmulProblem<T>& problem, const HopperRun& run) {
  const bool k_major_a = problem.a.col_stride == 1, k_major_b = problem.b.row_stride == 1;
  if (k_major_a && k_major_b) {
    start<T, kTileM, kTileN, Major::k, Major::k>(context, problem, run);
  } else if (k_major_a) {
    start<T, kTileM, kTileN, Major::k, Major::mn>(context, problem, run);
  } else if (k_major_b) {
    start<T, kTileM, kTileN, Major::mn, Major::k>(context, problem, run);
  } else {
    start<T, kTileM, kTileN, Major::mn, Major::mn>(context, problem, run);
  }
}

template <class T>
void start(Context& context, const MatmulProblem<T>& problem) {
  const auto& [batch, m, n, k] = problem.size;
  const HopperChoice choice = choose_hopper(problem.size, device_info().multiprocessors);
  const WorkspaceScope scope(context);
  HopperRun run = {choice.pieces, choice.pieces == 1 && leaves_by_engine(problem), nullptr,
                   (n + 7) / 8 * 8};
  const int64_t sums = batch * m * run.pitch;
  if (run.pieces > 1) run.partial = context.workspace->take<float>(run.pieces * sums);
  if (choice.tile_n == 256) {
    start<T, 128, 256>(context, problem, run);
  } else if (choice.tile_m == 128) {
    start<T, 128, 128>(context, problem, run);
  } else {
    start<T, 64, 128>(context, problem, run);
  }
  if (run.pieces > 1) {
    launch_next(matmul_join_kernel<T>, dim3(blocks_for(sums / 4, kJoinThreads)), dim3(kJoinThreads),
                0, context, problem, run.partial, run.pieces, run.pitch);
  }
}

}  // namespace

template <class T>
bool matmul_hopper(Context& context, const MatmulProblem<T>& problem) {
  if constexpr (sizeof(T) != 2) {
    return false;
  } else {
    constexpr int64_t kMaxSize = int64_t{1} << 30;
    const auto& [batch, m, n, k] = problem.size;
    if (device_info().compute_capability != 90 || k < 1 || std::max({m, n, k, batch}) > kMaxSize ||
        batch * hopper_choice::up(m, 64) > kMaxSize / hopper_choice::up(n, 128) ||
        !engine_reads(problem.a, m, k) || !engine_reads(problem.b, k, n)) {
      return false;
    }
    start(context, problem);
    return true;
  }
}

template bool matmul_hopper(Context&, const MatmulProblem<float>&);
template bool matmul_hopper(Context&, const MatmulProblem<double>&);
template bool matmul_hopper(Context&, const MatmulProblem<bfloat16>&);
template bool matmul_hopper(Context&, const MatmulProblem<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
