// SPDX-License-Identifier: MIT
// Rung 5, tile_2d: a thread owns 8 x 8 elements of c, so that 16 loads from shared memory serve 64
// fma: the outer product of a column of a and a row of b, in registers.
//
// Math:        c[i,j] = f(alpha sum_p a[i,p] b[p,j] + ...), p in slices of 8, in order.
// Shapes:      tile_a (8, 128), tile_b (8, 128), c (128, 128) a block; double: 64 and 4 x 4.
// Parallelism: 256 threads as (16, 16); thread (y, x) has 8 neighbouring rows from 8 y, and the
//              columns x, x + 16, .. so that a warp reads and writes neighbours.
// Memory:      global: 2 * 128 * 128 flop for 4 * 256 bytes = 32 flop a byte (rung 4: 16). Shared:
//              128 flop for 64 bytes = 2 flop a byte (rung 4: 0.44). A warp reads 16 neighbours of
//              tile_b and 2 different elements of tile_a: no bank conflicts.
// Limit:       rung 4 loaded as often as it multiplied. Here loads are a fifth of the source,
//              but they still move 4 bytes each.
// Source:      Volkov and Demmel 2008; Nath, Tomov and Dongarra, An Improved MAGMA GEMM (2010).
#include "epilogue.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kThreadsM = 16;
constexpr int kThreadsN = 16;
constexpr int kThreads = kThreadsM * kThreadsN;
constexpr int kTileK = 8;
template <class T>
constexpr int kThreadTile = 2 * kGroup<T>;  // elements a thread on each axis: 8, double 4
template <class T>
constexpr int kTile = kThreadsM * kThreadTile<T>;  // rows and columns a block: 128, double 64

template <class T>
__global__ void __launch_bounds__(kThreads, 2) matmul_tile_2d_kernel(MatmulProblem<T> problem) {
  grid_dependency_wait();
  using V = Accumulate<T>;
  using Tile = OperandTile<T, kTile<T>, kTileK, kThreads, Move::element>;
  using Rows = ThreadAxis<kThreadTile<T>, kThreadTile<T>, kThreadTile<T>>;
  using Cols = ThreadAxis<kThreadTile<T>, 1, kThreadsN>;
  __shared__ __align__(16) V tile_a[Tile::kSize];  // (kTileK, kTile)
  __shared__ __align__(16) V tile_b[Tile::kSize];  // (kTileK, kTile)
  const int tid = static_cast<int>(threadIdx.x);
  const int row = tid / kThreadsN * kThreadTile<T>;
  const int col = tid % kThreadsN;

  const TilePosition tile = TileGrid<kTile<T>, kTile<T>>(problem.size).of_block(problem.size);
  Tile a = operand_a<Tile>(problem, tile, tid);
  Tile b = operand_b<Tile>(problem, tile, tid);
  V sum[Rows::kCount * Cols::kCount] = {};  // (rows, columns) of the thread
  for (int64_t left = problem.size.k; left > 0; left -= kTileK) {
    a.load_next(tile_a, left);
    b.load_next(tile_b, left);
    // Both tiles are complete.
    __syncthreads();
#pragma unroll 2
    for (int p = 0; p < kTileK; ++p) {
      V from_a[Rows::kCount], from_b[Cols::kCount];
#pragma unroll
      for (int r = 0; r < Rows::kCount; ++r) {
        from_a[r] = tile_a[p * Tile::kPitch + row + Rows::at(r)];
      }
#pragma unroll
      for (int s = 0; s < Cols::kCount; ++s) {
        from_b[s] = tile_b[p * Tile::kPitch + col + Cols::at(s)];
      }
#pragma unroll
      for (int r = 0; r < Rows::kCount; ++r) {
#pragma unroll
        for (int s = 0; s < Cols::kCount; ++s) {
          sum[r * Cols::kCount + s] = fma(from_a[r], from_b[s], sum[r * Cols::kCount + s]);
        }
      }
    }
    // Everybody has read the tiles: the next slice may overwrite them.
    __syncthreads();
  }
  store_tile<Rows, Cols>(problem, tile.batch, tile.row + row, tile.col + col, sum);
}

}  // namespace

template <class T>
bool matmul_tile_2d(Context& context, const MatmulProblem<T>& problem) {
  const TileGrid<kTile<T>, kTile<T>> tiles(problem.size);
  launch_next(matmul_tile_2d_kernel<T>, tiles.blocks(), dim3(kThreads), 0, context, problem);
  return true;
}

template bool matmul_tile_2d(Context&, const MatmulProblem<float>&);
template bool matmul_tile_2d(Context&, const MatmulProblem<double>&);
template bool matmul_tile_2d(Context&, const MatmulProblem<bfloat16>&);
template bool matmul_tile_2d(Context&, const MatmulProblem<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
