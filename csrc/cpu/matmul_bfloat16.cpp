// SPDX-License-Identifier: MIT
// Math: c = f(alpha a b + beta c + bias) of bfloat16 operands, summed in float32, rounded once.
// Shapes: a (m, k), b (k, n), c (m, n), any strides, a batch of each.
// Parallelism: that of the float32 product.
// Memory: operands are widened into workspace, one matrix of the batch at a time.
#include "matmul_bfloat16.hpp"

#include <algorithm>

#include "bfloat16.hpp"
#include "isa.hpp"
#include "parallel.hpp"
#include "simd/activation.hpp"
#include "variant.hpp"

namespace tilegrad::cpu {
namespace {

constexpr double kNanosecondsAnElement = 0.5;

// The elements of x in the order of its own memory, as float32.
Matrix<const float> widen(Context& context, Matrix<const bfloat16> x, int64_t rows, int64_t cols) {
  float* wide = context.workspace->take<float>(rows * cols);
  const bool columns_first = x.row_stride == 1 && x.col_stride != 1;
  const int64_t lines = columns_first ? cols : rows;
  const int64_t length = columns_first ? rows : cols;
  const int64_t line = columns_first ? x.col_stride : x.row_stride;
  const int64_t step = columns_first ? x.row_stride : x.col_stride;
  parallel_for(context, lines, kNanosecondsAnElement * static_cast<double>(rows * cols),
               [&](int64_t l, int) {
                 const bfloat16* from = x.data + l * line;
                 float* to = wide + l * length;
                 for (int64_t i = 0; i < length; ++i) to[i] = widened(from[i * step]);
               });
  return columns_first ? Matrix<const float>{wide, 1, length}
                       : Matrix<const float>{wide, length, 1};
}

}  // namespace

void matmul_to_float(Context& context, Matrix<float> c, Matrix<const bfloat16> a,
                     Matrix<const bfloat16> b, MatmulSize size, double alpha, double beta) {
  const auto [batches, m, n, k] = size;
  for (int64_t batch = 0; batch < batches && m > 0 && n > 0; ++batch) {
    WorkspaceScope scope(context);
    matmul<float>(context, c, widen(context, a, m, k), widen(context, b, k, n), {1, m, n, k}, alpha,
                  beta);
    a.data += a.batch_stride;
    b.data += b.batch_stride;
    c.data += c.batch_stride;
  }
}

template <>
void matmul(Context& context, Matrix<bfloat16> c, Matrix<const bfloat16> a,
            Matrix<const bfloat16> b, MatmulSize size, double alpha, double beta,
            const Epilogue<bfloat16>& epilogue, std::string_view variant) {
  check_no_variant("matmul", variant);
  const auto [batches, m, n, k] = size;
  if (batches <= 0 || m <= 0 || n <= 0) return;
  const auto& kernel = kernels<ActivationKernels<float>>();
  for (int64_t batch = 0; batch < batches; ++batch) {
    WorkspaceScope scope(context);
    float* wide = context.workspace->take<float>(m * n);
    float* before = context.workspace->take<float>(m * n);
    float* bias = epilogue.bias == nullptr ? nullptr : context.workspace->take<float>(n);
    if (bias != nullptr) std::transform(epilogue.bias, epilogue.bias + n, bias, widened);
    bfloat16* rows = c.data + batch * c.batch_stride;
    if (beta != 0) {
      for (int64_t i = 0; i < m; ++i) {
        std::transform(rows + i * c.row_stride, rows + i * c.row_stride + n, wide + i * n, widened);
      }
    }
    matmul_to_float(context, {wide, n, 1},
                    {a.data + batch * a.batch_stride, a.row_stride, a.col_stride},
                    {b.data + batch * b.batch_stride, b.row_stride, b.col_stride}, {1, m, n, k},
                    alpha, beta);
    for (int64_t i = 0; i < m; ++i) {
      kernel.bias_forward(wide + i * n, before + i * n, bias, n, epilogue.activation);
      std::transform(wide + i * n, wide + (i + 1) * n, rows + i * c.row_stride, rounded);
      if (epilogue.preactivation == nullptr) continue;
      std::transform(before + i * n, before + (i + 1) * n,
                     epilogue.preactivation + (batch * m + i) * n, rounded);
    }
  }
}

}  // namespace tilegrad::cpu
