// SPDX-License-Identifier: MIT
// Rung 8, warp_tile: a warp owns a compact tile of c, and the buffers are a ring of 4.
//
// Math:        c[i,j] = f(alpha sum_p a[i,p] b[p,j] + ...), p in slices of 8, in order.
// Shapes:      4 x tile_a (8, 128), 4 x tile_b (8, 128); c: (128, 128) a block, (32, 64) a warp,
//              (8, 8) a thread in four blocks of (4, 4); double: half of each.
// Parallelism: 8 warps as (4, 2), lanes as (4, 8). Blocks walk c in bands of 8 rows of tiles.
// Memory:      32 flop a byte global. For 64 fma a thread rungs 5 to 7 had a warp read 16 elements
//              of a and 128 of b from shared memory; 32 of a and 64 of b make two thirds of that:
//              4096 flop for 384 bytes = 10.7 flop a byte a warp (7.1 before). No bank conflicts.
//              Three slices are on their way while one is multiplied. In a band neighbouring
//              blocks share b in the L2 cache as well as a. 16-bit: copied at once, as rung 7.
// Limit:       rung 7 read a long thin strip of c's operands for each warp. Now it is the fma unit.
// Source:      NVIDIA/cutlass, media/docs/efficient_gemm.md; Boehm 2022, kernel 10.
#include "epilogue.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kWarpsM = 4, kWarpsN = 2;
constexpr int kLanesM = 4, kLanesN = 8;
constexpr int kThreads = kWarpsM * kWarpsN * kWarpSize;
constexpr int kTileK = 8;
constexpr int kSlices = 4;  // buffers of the ring
constexpr int kBand = 8;    // rows of tiles
static_assert(kLanesM * kLanesN == kWarpSize);
template <class T>
using Rows = ThreadAxis<2 * kGroup<T>, kGroup<T>, kLanesM * kGroup<T>>;  // 2 x 4; double 2 x 2
template <class T>
using Cols = ThreadAxis<2 * kGroup<T>, kGroup<T>, kLanesN * kGroup<T>>;
template <class T>
constexpr int kWarpM = kLanesM * Rows<T>::kCount;  // 32; double 16
template <class T>
constexpr int kWarpN = kLanesN * Cols<T>::kCount;  // 64; double 32
template <class T>
constexpr int kTileM = kWarpsM * kWarpM<T>;  // 128; double 64
template <class T>
constexpr int kTileN = kWarpsN * kWarpN<T>;  // 128; double 64

template <class T>
__global__ void __launch_bounds__(kThreads, 2) matmul_warp_tile_kernel(MatmulProblem<T> problem) {
  grid_dependency_wait();
  using V = Accumulate<T>;
  using TileA = OperandTile<T, kTileM<T>, kTileK, kThreads, Move::async>;
  using TileB = OperandTile<T, kTileN<T>, kTileK, kThreads, Move::async>;
  __shared__ __align__(16) V tile_a[kSlices][TileA::kSize];  // kSlices x (kTileK, kTileM)
  __shared__ __align__(16) V tile_b[kSlices][TileB::kSize];  // kSlices x (kTileK, kTileN)
  const int tid = static_cast<int>(threadIdx.x);
  const int warp = tid / kWarpSize;
  const int lane = tid % kWarpSize;
  const int row = warp / kWarpsN * kWarpM<T> + lane / kLanesN * kGroup<T>;
  const int col = warp % kWarpsN * kWarpN<T> + lane % kLanesN * kGroup<T>;

  const TilePosition tile =
      TileGrid<kTileM<T>, kTileN<T>, kBand>(problem.size).of_block(problem.size);
  TileA a = operand_a<TileA>(problem, tile, tid);
  TileB b = operand_b<TileB>(problem, tile, tid);
  // Past the end of k the group is empty, so that the count of groups stays right.
  const auto start_slice = [&](int buffer, int64_t left) {
    if (left > 0) {
      a.load_next(tile_a[buffer], left);
      b.load_next(tile_b[buffer], left);
    }
    cp_async_commit();
  };
  V sum[Rows<T>::kCount * Cols<T>::kCount] = {};  // (rows, columns) of the thread
  constexpr int kAhead = kSlices - 1;
  for (int s = 0; s < kAhead; ++s) start_slice(s, problem.size.k - s * kTileK);
  int now = 0;
  for (int64_t left = problem.size.k; left > 0; left -= kTileK) {
    cp_async_wait<kAhead - 1>();
    // Everybody's copies of this slice are there, and everybody has read the slice before it: its
    // buffer, the last one of the ring from here, may be overwritten.
    __syncthreads();
    start_slice(now == 0 ? kSlices - 1 : now - 1, left - kAhead * kTileK);
    multiply_slice<Rows<T>, Cols<T>, kTileK, TileA::kPitch, TileB::kPitch>(sum, tile_a[now] + row,
                                                                           tile_b[now] + col);
    now = now == kSlices - 1 ? 0 : now + 1;
  }
  store_tile<Rows<T>, Cols<T>>(problem, tile.batch, tile.row + row, tile.col + col, sum);
}

}  // namespace

template <class T>
bool matmul_warp_tile(Context& context, const MatmulProblem<T>& problem) {
  const TileGrid<kTileM<T>, kTileN<T>, kBand> tiles(problem.size);
  launch_next(matmul_warp_tile_kernel<T>, tiles.blocks(), dim3(kThreads), 0, context, problem);
  return true;
}

template bool matmul_warp_tile(Context&, const MatmulProblem<float>&);
template bool matmul_warp_tile(Context&, const MatmulProblem<double>&);
template bool matmul_warp_tile(Context&, const MatmulProblem<bfloat16>&);
template bool matmul_warp_tile(Context&, const MatmulProblem<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
