// SPDX-License-Identifier: MIT
#include "tensor_core.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

// May 16 bytes be copied at a time along the contiguous axis? `other` is the other axis' stride.
template <class T>
bool sixteen_bytes(const Matrix<const T>& matrix, int64_t along, int64_t other) {
  constexpr int64_t kChunk = 16 / sizeof(T);
  return along == 1 && reinterpret_cast<uintptr_t>(matrix.data) % 16 == 0 && other % kChunk == 0 &&
         matrix.batch_stride % kChunk == 0;
}

template <class T, bool kAlongPA, bool kAlongPB>
void start(Context& context, const MatmulProblem<T>& problem, bool wide_a, bool wide_b) {
  using Tile = TensorCoreTile<T>;
  launch(matmul_tensor_core_kernel<T, kAlongPA, kAlongPB>,
         typename Tile::Grid(problem.size).blocks(), dim3(Tile::kThreads), Tile::kSharedBytes,
         stream_of(context), problem, wide_a, wide_b);
}

}  // namespace

template <class T>
bool matmul_tensor_core(Context& context, const MatmulProblem<T>& problem) {
  if constexpr (std::is_same_v<T, double>) {
    return false;
  } else {
    if (device_info().compute_capability < 80) return false;
    const Matrix<const T>&a = problem.a, &b = problem.b;
    const bool along_p_a = a.col_stride == 1 || a.row_stride != 1;
    const bool along_p_b = b.row_stride == 1 || b.col_stride != 1;
    const bool wide_a = along_p_a ? sixteen_bytes(a, a.col_stride, a.row_stride)
                                  : sixteen_bytes(a, a.row_stride, a.col_stride);
    const bool wide_b = along_p_b ? sixteen_bytes(b, b.row_stride, b.col_stride)
                                  : sixteen_bytes(b, b.col_stride, b.row_stride);
    if (along_p_a && along_p_b) {
      start<T, true, true>(context, problem, wide_a, wide_b);
    } else if (along_p_a) {
      start<T, true, false>(context, problem, wide_a, wide_b);
    } else if (along_p_b) {
      start<T, false, true>(context, problem, wide_a, wide_b);
    } else {
      start<T, false, false>(context, problem, wide_a, wide_b);
    }
    return true;
  }
}

template bool matmul_tensor_core(Context&, const MatmulProblem<float>&);
template bool matmul_tensor_core(Context&, const MatmulProblem<double>&);
template bool matmul_tensor_core(Context&, const MatmulProblem<bfloat16>&);
template bool matmul_tensor_core(Context&, const MatmulProblem<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
