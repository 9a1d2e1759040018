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

#include "epilogue.cuh"
#include "tensor_core_products.cuh"
#include "tensor_core_tile.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// Stores what a warp holds in mma fragments: 16 rows from `row` on and 8 kCols columns from `col`
// on, where value(j, r, e) is this thread's element of row g + 8 r, column 8 j + 2 t + e. They go
// through `scratch`, (16, fragment_width) floats of the warp's own in shared memory, so that
// neighbouring lanes store neighbouring groups of c. Its columns are swizzled by 8 (row % 4):
// neither the pairs written nor the groups read meet a bank twice.
template <int kCols>
inline constexpr int fragment_width = 8 * kCols < 64 ? 8 * kCols : 64;

template <int kCols, class T, class Value>
__device__ inline void store_fragments(const MatmulProblem<T>& problem, float* scratch,
                                       int64_t batch, int64_t row, int64_t col, Value value) {
  constexpr int kWidth = fragment_width<kCols>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto at = [](int r, int c) { return r * kWidth + (c ^ r % 4 * 8); };
#pragma unroll
  for (int first = 0; first < kCols; first += kWidth / 8) {
#pragma unroll
    for (int i = 0; i < kWidth / 4; ++i) {
      const int j = i / 2, r = i % 2;
      *reinterpret_cast<float2*>(&scratch[at(lane / 4 + 8 * r, 8 * j + lane % 4 * 2)]) =
          float2{value(first + j, r, 0), value(first + j, r, 1)};
    }
    // The warp's scratch is full.
    __syncwarp();
#pragma unroll 1
    for (int group = lane; group < 16 * kWidth / 4; group += 32) {
      const int r = group / (kWidth / 4), c = group % (kWidth / 4) * 4;
      float sum[4];
      load_group(sum, &scratch[at(r, c)]);
      store_tile<ThreadAxis<1, 1, 1>, ThreadAxis<4, 4, 4>>(problem, batch, row + r,
                                                           col + 8 * first + c, sum);
    }
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
  const int64_t steps = (problem.size.k + Tile::kK - 1) / Tile::kK;
  const typename Tile::Grid grid(problem.size);

  for (int64_t index = blockIdx.x; index < grid.count; index += gridDim.x) {
    const TilePosition tile = grid.at(index);
    const auto &a = problem.a, &b = problem.b;
    const MatmulSize& size = problem.size;
    ChunkLoader<T, kAlongPA> load_a(a.data + tile.batch * a.batch_stride + tile.row * a.row_stride,
                                    a.row_stride, a.col_stride, size.m - tile.row, size.k, wide_a,
                                    tid);
    ChunkLoader<T, kAlongPB> load_b(b.data + tile.batch * b.batch_stride + tile.col * b.col_stride,
                                    b.col_stride, b.row_stride, size.n - tile.col, size.k, wide_b,
                                    tid);
    const auto load = [&](int64_t step) {
      if (step < steps) {
        unsigned char* const stage = shared + step % Tile::kStages * (2 * Tile::kOperandBytes);
        load_a.load_next(stage);
        load_b.load_next(stage + Tile::kOperandBytes);
      }
      cp_async_commit();  // an empty group at the end keeps the count
    };
    float sum[Tile::kMmaM][Tile::kMmaN][4] = {};  // (16, 8) each

    // The last tile's scratch, where stages begin, has been read by all.
    __syncthreads();
    for (int step = 0; step < Tile::kStages - 1; ++step) load(step);
    for (int64_t step = 0; step < steps; ++step) {
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
          TileB::fragment_b(right[j].bits, stage + Tile::kOperandBytes, warp_n + 16 * j, half,
                            lane);
          Products::prepare(right[j]);
        }
#pragma unroll
        for (int i = 0; i < Tile::kMmaM; ++i) Products::add(sum[i], left[i], right);
      }
    }
    // All stages have been read; their memory is the warps' scratch.
    __syncthreads();
    float* const scratch =
        reinterpret_cast<float*>(shared) + warp * 16 * fragment_width<Tile::kMmaN>;
#pragma unroll
    for (int i = 0; i < Tile::kMmaM; ++i) {
      store_fragments<Tile::kMmaN>(problem, scratch, tile.batch, tile.row + warp_m + 16 * i,
                                   tile.col + warp_n,
                                   [&](int j, int r, int e) { return sum[i][j][2 * r + e]; });
    }
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
