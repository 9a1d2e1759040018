// SPDX-License-Identifier: MIT
// Rung 2, coalesced: the naive kernel with threadIdx.x and threadIdx.y exchanged, nothing else.
//
// Math:        c[i,j] = f(alpha sum_p a[i,p] b[p,j] + ...).
// Shapes:      a block covers (8, 32) elements of c.
// Parallelism: threadIdx.x is the column. A warp reads one element of a (a broadcast) and 32
//              neighbours of b, and writes 32 neighbours of c.
// Memory:      still 0.25 flop a byte asked for, but a request for row-major b is 4 sectors of 32
//              bytes, all of them used, where rung 1 took 32. The 8 warps of a block read the same
//              of b: one trip to memory, seven to the L1 cache. With up to 8 rows b is read once.
//              A transposed b (NT) has the naive kernel's trouble: only a tile in shared memory
//              can turn it.
// Limit:       two loads for one fma: the load units, now fed from L1, are 32 times too slow.
// Source:      NVIDIA, CUDA C++ Best Practices Guide, Coalesced Access to Global Memory.
#include "epilogue.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kRows = 8;  // (kRows, kCols) elements a block, columns along a warp
constexpr int kCols = 32;

template <class T>
__global__ void __launch_bounds__(kRows* kCols) matmul_coalesced_kernel(MatmulProblem<T> problem) {
  grid_dependency_wait();
  const auto [batches, m, n, k] = problem.size;
  const auto [batch, row, col] = TileGrid<kRows, kCols>(problem.size).of_block(problem.size);
  const int64_t i = row + threadIdx.y;
  const int64_t j = col + threadIdx.x;
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
bool matmul_coalesced(Context& context, const MatmulProblem<T>& problem) {
  const TileGrid<kRows, kCols> tiles(problem.size);
  launch_next(matmul_coalesced_kernel<T>, tiles.blocks(), dim3(kCols, kRows), 0, context, problem);
  return true;
}

template bool matmul_coalesced(Context&, const MatmulProblem<float>&);
template bool matmul_coalesced(Context&, const MatmulProblem<double>&);
template bool matmul_coalesced(Context&, const MatmulProblem<bfloat16>&);
template bool matmul_coalesced(Context&, const MatmulProblem<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
