// SPDX-License-Identifier: MIT
#include "hopper.cuh"

#include <algorithm>

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

// May the copy engine read the matrix? One of its axes is contiguous, the steps of the others are
// multiples of 16 bytes, and its coordinates fit into 32 bits. `along`, `other`: the strides of the
// contiguous axis and of the other one; `length`: elements of the contiguous axis.
template <class T>
bool tma_reads(const Matrix<const T>& matrix, int64_t along, int64_t other, int64_t length) {
  constexpr int64_t kStrideLimit = int64_t{1} << 39;  // of 2^40 bytes
  return along == 1 && reinterpret_cast<uintptr_t>(matrix.data) % 16 == 0 && other % 8 == 0 &&
         other >= length && other < kStrideLimit && matrix.batch_stride % 8 == 0 &&
         matrix.batch_stride >= 0 && matrix.batch_stride < kStrideLimit;
}

template <class T, int kTileN, Major kMajorA, Major kMajorB>
void start(Context& context, const MatmulProblem<T>& problem) {
  using Tile = HopperTile<kTileN>;
  const auto &a = problem.a, &b = problem.b;
  const MatmulSize& size = problem.size;
  // A matrix that every batch shares is one matrix to the copy engine.
  const auto count = [&](int64_t stride) { return stride == 0 ? 1 : size.batch; };
  const auto step = [](int64_t stride, int64_t any) { return stride == 0 ? any : stride; };
  const TensorMap map_a = HopperOperand<kMajorA, Tile::kM>::map(a.data, a.row_stride, a.col_stride,
                                                                step(a.batch_stride, 8), size.m,
                                                                size.k, count(a.batch_stride));
  const TensorMap map_b = HopperOperand<kMajorB, Tile::kN>::map(b.data, b.col_stride, b.row_stride,
                                                                step(b.batch_stride, 8), size.n,
                                                                size.k, count(b.batch_stride));
  const int64_t blocks =
      std::min<int64_t>(typename Tile::Grid(size).count, device_info().multiprocessors);
  launch(matmul_hopper_kernel<T, kTileN, kMajorA, kMajorB>, dim3(static_cast<unsigned>(blocks)),
         dim3(Tile::kThreads), Tile::kSharedBytes, stream_of(context), problem, map_a, map_b);
}

template <class T, int kTileN>
void start(Context& context, const MatmulProblem<T>& problem, Major major_a, Major major_b) {
  if (major_a == Major::k && major_b == Major::k) {
    start<T, kTileN, Major::k, Major::k>(context, problem);
  } else if (major_a == Major::k) {
    start<T, kTileN, Major::k, Major::mn>(context, problem);
  } else if (major_b == Major::k) {
    start<T, kTileN, Major::mn, Major::k>(context, problem);
  } else {
    start<T, kTileN, Major::mn, Major::mn>(context, problem);
  }
}

}  // namespace

template <class T>
bool matmul_hopper(Context& context, const MatmulProblem<T>& problem) {
  if constexpr (sizeof(T) != 2) {
    return false;
  } else {
    constexpr int64_t kMaxSize = int64_t{1} << 30;
    const auto &a = problem.a, &b = problem.b;
    const MatmulSize& size = problem.size;
    const bool k_major_a = a.col_stride == 1, k_major_b = b.row_stride == 1;
    const bool readable = (k_major_a ? tma_reads(a, a.col_stride, a.row_stride, size.k)
                                     : tma_reads(a, a.row_stride, a.col_stride, size.m)) &&
                          (k_major_b ? tma_reads(b, b.row_stride, b.col_stride, size.k)
                                     : tma_reads(b, b.col_stride, b.row_stride, size.n));
    if (device_info().compute_capability != 90 || !readable || size.k < 1 ||
        std::max({size.m, size.n, size.k, size.batch}) > kMaxSize) {
      return false;
    }
    const Major major_a = k_major_a ? Major::k : Major::mn;
    const Major major_b = k_major_b ? Major::k : Major::mn;
    if (hopper_tile_n(size, device_info().multiprocessors) == 256) {
      start<T, 256>(context, problem, major_a, major_b);
    } else {
      start<T, 128>(context, problem, major_a, major_b);
    }
    return true;
  }
}

template bool matmul_hopper(Context&, const MatmulProblem<float>&);
template bool matmul_hopper(Context&, const MatmulProblem<double>&);
template bool matmul_hopper(Context&, const MatmulProblem<bfloat16>&);
template bool matmul_hopper(Context&, const MatmulProblem<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
