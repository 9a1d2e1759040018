// SPDX-License-Identifier: MIT
// Rung 3, shared: a block brings a tile of a and one of b to shared memory and uses each element 32
// times there.
//
// Math:        c[i,j] = f(alpha sum_p a[i,p] b[p,j] + ...), p in slices of 32, in order.
// Shapes:      tile_a (32, 32) of a, tile_b (32, 32) of b, c (32, 32) a block of 1024 threads.
// Parallelism: thread (y, x) brings one element of each tile and owns c[row + y, col + x]. Where an
//              operand is contiguous down its columns, x and y change places for the load.
// Memory:      global: 2 * 32 flop for 8 bytes = 8 flop a byte (rung 2: 0.25), every sector used
//              whole for any transposition. Shared: 2 flop for 8 bytes; tile_b's rows go 32 lanes
//              to 32 banks, tile_a's element is a broadcast; a 33rd column keeps the transposed
//              store free of bank conflicts.
// Limit:       shared memory: two loads for one fma, as before, only nearer.
// Source:      NVIDIA, CUDA C++ Programming Guide, Shared Memory (matrix multiplication).
#include "epilogue.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kTile = 32;

template <class T>
__global__ void __launch_bounds__(kTile* kTile) matmul_shared_kernel(MatmulProblem<T> problem) {
  grid_dependency_wait();
  using V = Accumulate<T>;
  __shared__ V tile_a[kTile][kTile + 1];  // (i, p)
  __shared__ V tile_b[kTile][kTile + 1];  // (p, j)
  const auto [batches, m, n, k] = problem.size;
  const auto& a = problem.a;
  const auto& b = problem.b;
  const int x = static_cast<int>(threadIdx.x);
  const int y = static_cast<int>(threadIdx.y);
  const bool turn_a = a.row_stride == 1 && a.col_stride != 1;
  const bool turn_b = b.row_stride == 1 && b.col_stride != 1;
  const int i_a = turn_a ? x : y, p_a = turn_a ? y : x;
  const int p_b = turn_b ? x : y, j_b = turn_b ? y : x;

  const auto [batch, row, col] = TileGrid<kTile, kTile>(problem.size).of_block(problem.size);
  const T* from_a = a.data + batch * a.batch_stride + (row + i_a) * a.row_stride;
  const T* from_b = b.data + batch * b.batch_stride + (col + j_b) * b.col_stride;
  V sum = 0;
  for (int64_t p0 = 0; p0 < k; p0 += kTile) {
    tile_a[i_a][p_a] =
        row + i_a < m && p0 + p_a < k ? widen(from_a[(p0 + p_a) * a.col_stride]) : V(0);
    tile_b[p_b][j_b] =
        col + j_b < n && p0 + p_b < k ? widen(from_b[(p0 + p_b) * b.row_stride]) : V(0);
    // Both tiles are complete.
    __syncthreads();
#pragma unroll
    for (int p = 0; p < kTile; ++p) sum = fma(tile_a[y][p], tile_b[p][x], sum);
    // Everybody has read the tiles: the next slice may overwrite them.
    __syncthreads();
  }
  if (row + y < m && col + x < n) store_element(problem, batch, row + y, col + x, sum);
}

}  // namespace

template <class T>
bool matmul_shared(Context& context, const MatmulProblem<T>& problem) {
  const TileGrid<kTile, kTile> tiles(problem.size);
  launch_next(matmul_shared_kernel<T>, tiles.blocks(), dim3(kTile, kTile), 0, context, problem);
  return true;
}

template bool matmul_shared(Context&, const MatmulProblem<float>&);
template bool matmul_shared(Context&, const MatmulProblem<double>&);
template bool matmul_shared(Context&, const MatmulProblem<bfloat16>&);
template bool matmul_shared(Context&, const MatmulProblem<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
