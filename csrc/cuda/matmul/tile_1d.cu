// SPDX-License-Identifier: MIT
// Rung 4, tile_1d: a thread owns 8 elements of a column of c, so that one element of b, once in a
// register, serves 8 fma.
//
// Math:        c[i,j] = f(alpha sum_p a[i,p] b[p,j] + ...), p in slices of 8, in order.
// Shapes:      tile_a (8, 64) of a, transposed; tile_b (8, 64) of b; c (64, 64) a block.
// Parallelism: 512 threads; thread = (row group of 8, column). A warp has one row group and 32
//              neighbouring columns.
// Memory:      global: 2 * 64 * 64 flop for 4 * 128 bytes = 16 flop a byte (rung 3: 8). Shared: 16
//              flop for 9 loads (rung 3: 2 for 2), and the 8 of a are neighbours and the same for
//              the whole warp: two 16-byte broadcasts. No bank conflicts.
// Limit:       rung 3 did a load for every flop. Here it is 9 loads for 8 fma still: one column a
//              thread uses an element of a just once.
// Source:      Volkov and Demmel, Benchmarking GPUs to Tune Dense Linear Algebra (2008).
#include "epilogue.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kTileM = 64;
constexpr int kTileN = 64;
constexpr int kTileK = 8;
constexpr int kThreadM = 8;                           // elements a thread, down a column
constexpr int kThreads = kTileM / kThreadM * kTileN;  // 512

template <class T>
__global__ void __launch_bounds__(kThreads) matmul_tile_1d_kernel(MatmulProblem<T> problem) {
  grid_dependency_wait();
  using V = Accumulate<T>;
  using TileA = OperandTile<T, kTileM, kTileK, kThreads, Move::element>;
  using TileB = OperandTile<T, kTileN, kTileK, kThreads, Move::element>;
  __shared__ __align__(16) V tile_a[TileA::kSize];  // (kTileK, kTileM)
  __shared__ __align__(16) V tile_b[TileB::kSize];  // (kTileK, kTileN)
  const int tid = static_cast<int>(threadIdx.x);
  const int row = tid / kTileN * kThreadM;
  const int col = tid % kTileN;

  const TilePosition tile = TileGrid<kTileM, kTileN>(problem.size).of_block(problem.size);
  TileA a = operand_a<TileA>(problem, tile, tid);
  TileB b = operand_b<TileB>(problem, tile, tid);
  V sum[kThreadM] = {};
  for (int64_t left = problem.size.k; left > 0; left -= kTileK) {
    a.load_next(tile_a, left);
    b.load_next(tile_b, left);
    // Both tiles are complete.
    __syncthreads();
#pragma unroll
    for (int p = 0; p < kTileK; ++p) {
      const V from_b = tile_b[p * TileB::kPitch + col];
#pragma unroll
      for (int r = 0; r < kThreadM; ++r) {
        sum[r] = fma(tile_a[p * TileA::kPitch + row + r], from_b, sum[r]);
      }
    }
    // Everybody has read the tiles: the next slice may overwrite them.
    __syncthreads();
  }
  store_tile<ThreadAxis<kThreadM, kThreadM, kThreadM>, ThreadAxis<1, 1, 1>>(
      problem, tile.batch, tile.row + row, tile.col + col, sum);
}

}  // namespace

template <class T>
bool matmul_tile_1d(Context& context, const MatmulProblem<T>& problem) {
  const TileGrid<kTileM, kTileN> tiles(problem.size);
  launch_next(matmul_tile_1d_kernel<T>, tiles.blocks(), dim3(kThreads), 0, context, problem);
  return true;
}

template bool matmul_tile_1d(Context&, const MatmulProblem<float>&);
template bool matmul_tile_1d(Context&, const MatmulProblem<double>&);
template bool matmul_tile_1d(Context&, const MatmulProblem<bfloat16>&);
template bool matmul_tile_1d(Context&, const MatmulProblem<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
