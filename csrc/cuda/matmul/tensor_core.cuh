// SPDX-License-Identifier: MIT
// Rung 9: the tensor cores by mma.sync, fed by a ring of cp.async stages.
//
// Math:        c[b,i,j] = f(alpha sum_p a[b,i,p] b[b,p,j] + ..): sums in float, p in blocks of one
//              mma (16, tf32: 8). float is rounded to tf32 (10 bits of significand, ties away from
//              zero), so this rung is taken for float only where it is asked for.
// Shapes:      tile of c (128, 128), of a and b 64 bytes of p: 32 elements (float: 16).
// Parallelism: a block of 8 warps, (2, 4) of them, a tile; a warp (64, 32) = 4 x 4 mma.
// Memory:      each operand is read once a tile, 16 bytes a cp.async where base and strides are
//              multiples of 16 bytes, else element by element into the same shared tile: same bits.
//              4 stages of 16 KB; 3 are on their way while one is multiplied. Chunks of 16 bytes
//              are swizzled (SharedTile), so that neither copies nor fragments meet a bank twice.
// Source:      PTX ISA, mma.sync, ldmatrix; CUTLASS, Efficient GEMM in CUDA.
#pragma once

#include "../ptx/opaque.cuh"
#include "epilogue.cuh"
#include "tensor_core_products.cuh"
#include "tensor_core_tile.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// What a warp holds in mma fragments goes through shared memory of its own, (16, fragment_width)
// floats for each 16 rows, so that neighbouring lanes store neighbouring groups of c. Columns are
// swizzled by 8 (row % 4): neither the pairs written nor the groups read meet a bank twice.
template <int kCols>
inline constexpr int fragment_width = 8 * kCols < 64 ? 8 * kCols : 64;
template <int kWidth>
__device__ inline int fragment_at(int row, int col) {
  return row * kWidth + (col ^ row % 4 * 8);
}

// Writes 16 rows of kWidth columns, where value(j, r, e) is this thread's element of row g + 8 r,
// column 8 j + 2 t + e.
template <int kWidth, class Value>
__device__ inline void put_fragments(float* scratch, Value value) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < kWidth / 4; ++i) {
    const int j = i / 2, r = i % 2;
    float* const pair = &scratch[fragment_at<kWidth>(lane / 4 + 8 * r, 8 * j + lane % 4 * 2)];
    *reinterpret_cast<float2*>(pair) = float2{value(j, r, 0), value(j, r, 1)};
  }
}

// Finishes and stores them: the elements of c from (row, col) on. A lane's groups lie below each
// other: where sums of columns are wanted it adds its own, then the lanes of a column meet.
template <int kWidth, class T>
__device__ inline void finish_fragments(const MatmulProblem<T>& problem, const float* scratch,
                                        int64_t batch, int64_t row, int64_t col) {
  using Cols = ThreadAxis<4, 4, 4>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int c = lane % (kWidth / 4) * 4;
  const int64_t left = problem.size.n - col - c;
  const int rows = static_cast<int>(problem.size.m - row < 16 ? problem.size.m - row : 16);
  float total[4] = {};
#pragma unroll 1
  for (int r = lane / (kWidth / 4); r < rows; r += 128 / kWidth) {
    float y[4];
    load_group(y, &scratch[fragment_at<kWidth>(r, c)]);
    finish_row<Cols>(problem, batch, row + r, col + c, y);
    with_result(problem, [&](const auto& matrix) {
      store_row<Cols>(element(matrix, batch, row + r, col + c), left, y);
    });
#pragma unroll
    for (int e = 0; e < 4; ++e) total[e] += y[e];
  }
  if (problem.below.sums == nullptr || rows <= 0) return;
#pragma unroll
  for (int distance = kWidth / 4; distance < 32; distance *= 2) {
#pragma unroll
    for (int e = 0; e < 4; ++e) total[e] += __shfl_xor_sync(kFullMask, total[e], distance);
  }
  if (lane < kWidth / 4) {
    const int64_t piece = batch * pieces_of_rows(problem.size.m) + row / 16;
    store_row<Cols>(problem.below.sums + piece * problem.size.n + col + c, left, total);
  }
}

// Stores 16 rows from `row` on and 8 kCols columns from `col` on, fragment_width of them a turn.
template <int kCols, class T, class Value>
__device__ inline void store_fragments(const MatmulProblem<T>& problem, float* scratch,
                                       int64_t batch, int64_t row, int64_t col, Value value) {
  constexpr int kWidth = fragment_width<kCols>;
#pragma unroll
  for (int first = 0; first < kCols; first += kWidth / 8) {
    put_fragments<kWidth>(scratch, [&](int j, int r, int e) { return value(first + j, r, e); });
    // The warp's scratch is full.
    __syncwarp();
    finish_fragments<kWidth>(problem, scratch, batch, row, col + 8 * first);
    // The scratch has been read.
    __syncwarp();
  }
}

// Products: how fragments are multiplied (tensor_core_products.cuh).
template <class T, class Products, bool kAlongPA, bool kAlongPB>
__global__ __launch_bounds__(
    TensorCoreTile<T>::kThreads,
    Products::kBlocks) void matmul_tensor_core_kernel(const MatmulProblem<T> problem, bool wide_a,
                                                      bool wide_b) {
  grid_dependency_wait();
  using Tile = TensorCoreTile<T>;
  using TileA = SharedTile<T, kAlongPA>;
  using TileB = SharedTile<T, kAlongPB>;
  unsigned char* const shared = dynamic_smem<unsigned char>();  // (kStages, {a, b}, 8 KB)
  const int tid = static_cast<int>(threadIdx.x), lane = tid % 32, warp = tid / 32;
  const int warp_m = warp / Tile::kWarpsN * (Tile::kM / Tile::kWarpsM);
  const int warp_n = warp % Tile::kWarpsN * (Tile::kN / Tile::kWarpsN);
  // 32 bits hold the steps of any k that fits a device, and leave registers to the sums.
  const int steps = static_cast<int>((problem.size.k + Tile::kK - 1) / Tile::kK);
  const typename Tile::Grid grid(problem.size);

  const TilePosition tile = grid.of_block(problem.size);
  const auto &a = problem.a, &b = problem.b;
  const MatmulSize& size = problem.size;
  ChunkLoader<T, kAlongPA> load_a(a.data + tile.batch * a.batch_stride + tile.row * a.row_stride,
                                  a.row_stride, a.col_stride, size.m - tile.row, size.k, wide_a,
                                  tid);
  ChunkLoader<T, kAlongPB> load_b(b.data + tile.batch * b.batch_stride + tile.col * b.col_stride,
                                  b.col_stride, b.row_stride, size.n - tile.col, size.k, wide_b,
                                  tid);
  const auto load = [&](int step) {
    if (step < steps) {
      unsigned char* const stage = shared + step % Tile::kStages * (2 * Tile::kOperandBytes);
      load_a.load_next(stage);
      load_b.load_next(stage + Tile::kOperandBytes);
    }
    cp_async_commit();  // an empty group at the end keeps the count
  };
  float sum[Tile::kMmaM][Tile::kMmaN][4] = {};  // (16, 8) each

  for (int step = 0; step < Tile::kStages - 1; ++step) load(step);
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<Tile::kStages - 2>();
    // The copies of all threads for this step are there, and the stage before it is free.
    __syncthreads();
    load(step + Tile::kStages - 1);
    const unsigned char* const stage = shared + step % Tile::kStages * (2 * Tile::kOperandBytes);
#pragma unroll Products::kSteps
    for (int half = 0; half < 2; ++half) {
      typename Products::Fragment left[Tile::kMmaM], right[Tile::kMmaN / 2];
#pragma unroll
      for (int i = 0; i < Tile::kMmaM; ++i) {
        TileA::fragment_a(left[i].bits, stage, warp_m + 16 * i, half, lane);
        Products::prepare(left[i]);
      }
#pragma unroll
      for (int j = 0; j < Tile::kMmaN / 2; ++j) {
        TileB::fragment_b(right[j].bits, stage + Tile::kOperandBytes, warp_n + 16 * j, half, lane);
        Products::prepare(right[j]);
      }
#pragma unroll
      for (int i = 0; i < Tile::kMmaM; ++i) Products::add(sum[i], left[i], right);
    }
  }
  // All stages have been read; their memory is the warps' scratch. The sums leave the registers
  // at once: what finishes them needs those.
  __syncthreads();
  constexpr int kWidth = 8 * Tile::kMmaN;
  static_assert(Tile::kThreads / 32 * Tile::kMmaM * 16 * kWidth * 4 <= Tile::kSharedBytes);
  float* const scratch = reinterpret_cast<float*>(shared) + warp * Tile::kMmaM * 16 * kWidth;
#pragma unroll
  for (int i = 0; i < Tile::kMmaM; ++i) {
    put_fragments<kWidth>(scratch + i * 16 * kWidth,
                          [&](int j, int r, int e) { return sum[i][j][2 * r + e]; });
  }
  // The warp's scratch is full.
  __syncwarp();
  const TilePosition out = grid.of_block(size, opaque(grid.block_index()));
#pragma unroll 1
  for (int i = 0; i < Tile::kMmaM; ++i) {
    finish_fragments<kWidth>(problem, scratch + i * 16 * kWidth, out.batch,
                             out.row + warp_m + 16 * i, out.col + warp_n);
  }
}

// May 16 bytes be copied at a time along the contiguous axis? `other` is the other axis' stride.
template <class T>
inline bool sixteen_bytes(const Matrix<const T>& matrix, int64_t along, int64_t other) {
  constexpr int64_t kChunk = 16 / sizeof(T);
  return along == 1 && reinterpret_cast<uintptr_t>(matrix.data) % 16 == 0 && other % kChunk == 0 &&
         matrix.batch_stride % kChunk == 0;
}

template <class T, class Products, bool kAlongPA, bool kAlongPB>
void start_tensor_core(Context& context, const MatmulProblem<T>& problem, bool wide_a,
                       bool wide_b) {
  using Tile = TensorCoreTile<T>;
  launch_next(matmul_tensor_core_kernel<T, Products, kAlongPA, kAlongPB>,
              typename Tile::Grid(problem.size).blocks(), dim3(Tile::kThreads), Tile::kSharedBytes,
              context, problem, wide_a, wide_b);
}

// The kernel for the axes along which the operands are contiguous.
template <class T, class Products>
void start_tensor_core(Context& context, const MatmulProblem<T>& problem) {
  const Matrix<const T>&a = problem.a, &b = problem.b;
  const bool along_p_a = a.col_stride == 1 || a.row_stride != 1;
  const bool along_p_b = b.row_stride == 1 || b.col_stride != 1;
  const bool wide_a = along_p_a ? sixteen_bytes(a, a.col_stride, a.row_stride)
                                : sixteen_bytes(a, a.row_stride, a.col_stride);
  const bool wide_b = along_p_b ? sixteen_bytes(b, b.row_stride, b.col_stride)
                                : sixteen_bytes(b, b.col_stride, b.row_stride);
  if (along_p_a && along_p_b) {
    start_tensor_core<T, Products, true, true>(context, problem, wide_a, wide_b);
  } else if (along_p_a) {
    start_tensor_core<T, Products, true, false>(context, problem, wide_a, wide_b);
  } else if (along_p_b) {
    start_tensor_core<T, Products, false, true>(context, problem, wide_a, wide_b);
  } else {
    start_tensor_core<T, Products, false, false>(context, problem, wide_a, wide_b);
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
