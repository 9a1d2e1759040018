// SPDX-License-Identifier: MIT
// Rung 1, naive: one thread an element of c, and the wrong way round on purpose.
//
// Math:        c[i,j] = f(alpha sum_p a[i,p] b[p,j] + ...), the sum one chain of fma, p = 0 .. k-1.
//              Every rung up to warp_tile keeps this chain: they all give the same bits.
// Shapes:      a block covers (32, 8) elements of c.
// Parallelism: threadIdx.x, which runs inside a warp, is the row. The 32 threads of a warp so read
//              32 rows of a at one p, and write 32 rows of c: addresses a whole row apart.
// Memory:      2 flop for every 8 bytes asked for (0.25 flop a byte of float32); row-major a costs
//              32 sectors of 32 bytes a request where 4 would do, b one (a broadcast).
// Limit:       the load units: a warp waits for 33 sectors to do 64 flop.
// Source:      the first kernel of everybody; Boehm, How to Optimize a CUDA Matmul Kernel (2022).
#include "epilogue.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kRows = 32;  // (kRows, kCols) elements a block, rows along a warp
constexpr int kCols = 8;

template <class T>
__global__ void __launch_bounds__(kRows* kCols) matmul_naive_kernel(MatmulProblem<T> problem) {
  grid_dependency_wait();
  const auto [batches, m, n, k] = problem.size;
  const auto [batch, row, col] = TileGrid<kRows, kCols>(problem.size).of_block(problem.size);
  const int64_t i = row + threadIdx.x;
  const int64_t j = col + threadIdx.y;
  if (i >= m || j >= n) return;
  const T* a = problem.a.data + batch * problem.a.batch_stride + i * problem.a.row_stride;
  const T* b = problem.b.data + batch * problem.b.batch_stride + j * problem.b.col_stride;
  Accumulate<T> sum = 0;
  for (int64_t p = 0; p < k; ++p) {
    sum = fma(widen(a[p * problem.a.col_stride]), widen(b[p * problem.b.row_stride]), sum);
  }
  store_element(problem, batch, i, j, sum);
}

}  // namespace

template <class T>
bool matmul_naive(Context& context, const MatmulProblem<T>& problem) {
  const TileGrid<kRows, kCols> tiles(problem.size);
  launch_next(matmul_naive_kernel<T>, tiles.blocks(), dim3(kRows, kCols), 0, context, problem);
  return true;
}

template bool matmul_naive(Context&, const MatmulProblem<float>&);
template bool matmul_naive(Context&, const MatmulProblem<double>&);
template bool matmul_naive(Context&, const MatmulProblem<bfloat16>&);
template bool matmul_naive(Context&, const MatmulProblem<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
