// SPDX-License-Identifier: MIT
// Rung 12: float32 as tf32 on Hopper's tensor cores: rung 10's kernel (hopper.cuh) for floats.
//
// Math:        operands are rounded to tf32 (10 bits of significand) by the copy engine:
//              to nearest, ties to even. It leaves NaN as they are, and wgmma does not read the
//              low 13 bits: a NaN whose payload lies there alone (0x7f800001; no arithmetic makes
//              it) counts as
//              an infinity.
// Shapes:      the same bytes a stage, so half of the p; a step takes as long as of 16 bits.
// Memory:      wgmma takes 4-byte elements k-major only: each operand is contiguous along p. Others
//              are transposed into workspace first. A line of a box of c is 32 floats.
// Source:      PTX ISA, wgmma and cp.async.bulk.tensor.
#include "hopper_launch.cuh"
#include "needs.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

// An operand as rows of p: element (b, x, p) is data[b batch_stride + x x_stride + p p_stride].
struct Rows {
  const float* data;
  int64_t batch_stride, x_stride, p_stride;
};

// The operand where and as the engine reads it: in place, or a copy in workspace.
Rows readable(Context& context, const Rows& x, int64_t batch, int64_t count, int64_t k) {
  const Matrix<const float> matrix = {x.data, x.x_stride, x.p_stride, x.batch_stride};
  if (x.p_stride == 1 && engine_reads(matrix, count, k)) return x;
  const int64_t matrices = x.batch_stride == 0 ? 1 : batch;
  const int64_t sizes[] = {matrices, count, k};
  const int64_t strides[] = {x.batch_stride, x.x_stride, x.p_stride};
  auto* const copy = context.workspace->take<float>(matrices * count * k);
  pack(context, copy, x.data, {3, sizes, strides});
  return {copy, matrices == 1 ? 0 : count * k, k, 1};
}

}  // namespace

template <class T>
bool matmul_hopper_tf32(Context& context, const MatmulProblem<T>& problem) {
  if constexpr (!std::is_same_v<T, float>) {
    return false;
  } else {
    if (!hopper_tf32_needs(problem, device_info().compute_capability).empty()) return false;
    const auto& [batch, m, n, k] = problem.size;
    const auto &a = problem.a, &b = problem.b;
    const WorkspaceScope scope(context);
    MatmulProblem<float> by_rows = problem;
    const Rows left =
        readable(context, {a.data, a.batch_stride, a.row_stride, a.col_stride}, batch, m, k);
    const Rows right =
        readable(context, {b.data, b.batch_stride, b.col_stride, b.row_stride}, batch, n, k);
    by_rows.a = {left.data, left.x_stride, 1, left.batch_stride};
    by_rows.b = {right.data, 1, right.x_stride, right.batch_stride};
    start_hopper(context, by_rows);
    return true;
  }
}

template bool matmul_hopper_tf32(Context&, const MatmulProblem<float>&);
template bool matmul_hopper_tf32(Context&, const MatmulProblem<double>&);
template bool matmul_hopper_tf32(Context&, const MatmulProblem<bfloat16>&);
template bool matmul_hopper_tf32(Context&, const MatmulProblem<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
