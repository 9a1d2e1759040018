// SPDX-License-Identifier: MIT
// Rung 6, vectorized: the tiles of rung 5, moved 16 bytes at a time.
//
// Math:        c[i,j] = f(alpha sum_p a[i,p] b[p,j] + ...), p in slices of 8, in order.
// Shapes:      tile_a (8, 128), tile_b (8, 128), c (128, 128) a block; double: 64 and 4 x 4.
// Parallelism: 256 threads as (16, 16); thread (y, x) has 8 rows from 8 y, and columns in two runs
//              of 4, from 4 x and from 64 + 4 x: neighbours in a warp are 16 bytes apart.
// Memory:      32 flop a byte global, 2 flop a byte shared, as rung 5, in a quarter of the load
//              instructions: 4 for 64 fma. Shared reads are free of bank conflicts, and so are the
//              writes, transposed ones too. An operand whose address or stride is not a multiple
//              of 16 bytes takes rung 5's loads to the same place: the same bits.
// Limit:       rung 5 spent up to a fifth of its slots on loads. Left over is waiting: between two
//              barriers the block has nothing to do until its loads come back.
// Source:      Boehm 2022, kernel 6; NVIDIA, Pro Tip: Vectorized Memory Access (2013).
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
__global__ void __launch_bounds__(kThreads, 2) matmul_vectorized_kernel(MatmulProblem<T> problem) {
  grid_dependency_wait();
  using V = Accumulate<T>;
  using Tile = OperandTile<T, kTile<T>, kTileK, kThreads, Move::group>;
  using Rows = ThreadAxis<kThreadTile<T>, kThreadTile<T>, kThreadTile<T>>;
  using Cols = ThreadAxis<kThreadTile<T>, kGroup<T>, kThreadsN * kGroup<T>>;
  __shared__ __align__(16) V tile_a[Tile::kSize];  // (kTileK, kTile)
  __shared__ __align__(16) V tile_b[Tile::kSize];  // (kTileK, kTile)
  const int tid = static_cast<int>(threadIdx.x);
  const int row = tid / kThreadsN * kThreadTile<T>;
  const int col = tid % kThreadsN * kGroup<T>;

  const TilePosition tile = TileGrid<kTile<T>, kTile<T>>(problem.size).of_block(problem.size);
  Tile a = operand_a<Tile>(problem, tile, tid);
  Tile b = operand_b<Tile>(problem, tile, tid);
  V sum[Rows::kCount * Cols::kCount] = {};  // (rows, columns) of the thread
  for (int64_t left = problem.size.k; left > 0; left -= kTileK) {
    a.load_next(tile_a, left);
    b.load_next(tile_b, left);
    // Both tiles are complete.
    __syncthreads();
    multiply_slice<Rows, Cols, kTileK, Tile::kPitch, Tile::kPitch>(sum, tile_a + row, tile_b + col);
    // Everybody has read the tiles: the next slice may overwrite them.
    __syncthreads();
  }
  store_tile<Rows, Cols>(problem, tile.batch, tile.row + row, tile.col + col, sum);
}

}  // namespace

template <class T>
bool matmul_vectorized(Context& context, const MatmulProblem<T>& problem) {
  const TileGrid<kTile<T>, kTile<T>> tiles(problem.size);
  launch_next(matmul_vectorized_kernel<T>, tiles.blocks(), dim3(kThreads), 0, context, problem);
  return true;
}

template bool matmul_vectorized(Context&, const MatmulProblem<float>&);
template bool matmul_vectorized(Context&, const MatmulProblem<double>&);
template bool matmul_vectorized(Context&, const MatmulProblem<bfloat16>&);
template bool matmul_vectorized(Context&, const MatmulProblem<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
