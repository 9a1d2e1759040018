// SPDX-License-Identifier: MIT
// Rung 7, double_buffered: two pairs of tiles. While the block multiplies one, the other fills.
//
// Math:        c[i,j] = f(alpha sum_p a[i,p] b[p,j] + ...), p in slices of 8, in order.
// Shapes:      2 x tile_a (8, 128), 2 x tile_b (8, 128), c (128, 128) a block; double: 64, 4 x 4.
// Parallelism: as rung 6; the copies are cp.async: a thread starts them and goes on to multiply.
// Memory:      32 flop a byte global, 2 flop a byte shared, as before. What changes is time: the
//              latency of a slice's loads hides behind 64 x 8 fma of the slice before it, no
//              register holds them on the way, and one barrier a slice is enough instead of two.
//              A transposed operand is copied 4 (double: 8) bytes at a time, still coalesced and
//              free of bank conflicts. 16-bit elements are widened on the way, which cp.async
//              cannot do: their copies are not asynchronous. sm_75 has no cp.async either.
// Limit:       rung 6 waited for memory between two barriers. Next: the traffic of shared memory.
// Source:      PTX ISA, cp.async; NVIDIA, Controlling Data Movement on the Ampere Architecture.
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
__global__ void __launch_bounds__(kThreads, 2)
    matmul_double_buffered_kernel(MatmulProblem<T> problem) {
  grid_dependency_wait();
  using V = Accumulate<T>;
  using Tile = OperandTile<T, kTile<T>, kTileK, kThreads, Move::async>;
  using Rows = ThreadAxis<kThreadTile<T>, kThreadTile<T>, kThreadTile<T>>;
  using Cols = ThreadAxis<kThreadTile<T>, kGroup<T>, kThreadsN * kGroup<T>>;
  __shared__ __align__(16) V tile_a[2][Tile::kSize];  // 2 x (kTileK, kTile)
  __shared__ __align__(16) V tile_b[2][Tile::kSize];  // 2 x (kTileK, kTile)
  const int tid = static_cast<int>(threadIdx.x);
  const int row = tid / kThreadsN * kThreadTile<T>;
  const int col = tid % kThreadsN * kGroup<T>;

  const TilePosition tile = TileGrid<kTile<T>, kTile<T>>(problem.size).of_block(problem.size);
  Tile a = operand_a<Tile>(problem, tile, tid);
  Tile b = operand_b<Tile>(problem, tile, tid);
  const auto start_slice = [&](int buffer, int64_t left) {
    a.load_next(tile_a[buffer], left);
    b.load_next(tile_b[buffer], left);
    cp_async_commit();
  };
  V sum[Rows::kCount * Cols::kCount] = {};  // (rows, columns) of the thread
  int now = 0;
  if (problem.size.k > 0) start_slice(now, problem.size.k);
  for (int64_t left = problem.size.k; left > 0; left -= kTileK) {
    cp_async_wait<0>();
    // Everybody's copies of this slice are there, and everybody has read the slice before it: the
    // other buffer may be overwritten.
    __syncthreads();
    if (left > kTileK) start_slice(1 - now, left - kTileK);
    multiply_slice<Rows, Cols, kTileK, Tile::kPitch, Tile::kPitch>(sum, tile_a[now] + row,
                                                                   tile_b[now] + col);
    now = 1 - now;
  }
  store_tile<Rows, Cols>(problem, tile.batch, tile.row + row, tile.col + col, sum);
}

}  // namespace

template <class T>
bool matmul_double_buffered(Context& context, const MatmulProblem<T>& problem) {
  const TileGrid<kTile<T>, kTile<T>> tiles(problem.size);
  launch_next(matmul_double_buffered_kernel<T>, tiles.blocks(), dim3(kThreads), 0, context,
              problem);
  return true;
}

template bool matmul_double_buffered(Context&, const MatmulProblem<float>&);
template bool matmul_double_buffered(Context&, const MatmulProblem<double>&);
template bool matmul_double_buffered(Context&, const MatmulProblem<bfloat16>&);
template bool matmul_double_buffered(Context&, const MatmulProblem<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
