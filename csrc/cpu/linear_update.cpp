// SPDX-License-Identifier: MIT
// Math: dW = dz^T x and at once W = rule(W, dW);  dx = dz W from the old W, db = sum over rows.
// Shapes: x (rows, in), W (out, in), dz (rows, out); a strip of dW is (kStripRows, kStripColumns).
// Parallelism: a task computes a strip of dW by a serial product and updates the weights under it.
//   Neither the tile nor the path of a product shows in its bits, so nor do the strips.
// Memory: a strip of dW stays in L2; a weight is read and written once, its gradient never.
#include "linear_update.hpp"

#include <algorithm>

#include "matmul_path.hpp"
#include "parallel.hpp"

namespace tilegrad::cpu {
namespace {

constexpr int64_t kStripRows = 112;     // whole tiles of 14 or 28 rows
constexpr int64_t kStripColumns = 512;  // 224 KiB of float beside as many bytes of weights
constexpr int64_t kSmallWeight = int64_t{1} << 14;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

bool worth_fusing(int64_t weight_elements) { return weight_elements >= kSmallWeight; }

template <class T>
void linear_backward_update(Context& context, T* dx, const OptimTensor<T>& weight, T* dbias,
                            const T* dy, const T* x, const T* saved, bool saved_is_output,
                            LinearSize size, Activation activation, const UpdateRule<T>& rule) {
  const auto [rows, in, out] = size;
  WorkspaceScope scope(context);
  const T* dz = dy;
  if (activation.kind != ActivationKind::identity) {
    T* product = context.workspace->take<T>(rows * out);
    activation_backward<T>(context, product, dy, saved, saved_is_output, rows * out, activation);
    dz = product;
  }
  linear_backward<T>(context, dx, static_cast<T*>(nullptr), dbias, dz, x, weight.data, nullptr,
                     false, size, {}, false);

  const int64_t strip_rows = std::min(out, kStripRows);
  const int64_t strip_columns = std::min(in, kStripColumns);
  const int64_t column_tasks = ceil_div(in, strip_columns);
  const int64_t strip = strip_rows * strip_columns;
  T* const strips = context.workspace->take<T>(thread_limit(context) * strip);
  const double nanoseconds = matmul_nanoseconds(out, in, rows, sizeof(T)) +
                             static_cast<double>(weight.size) * rule.nanoseconds;
  parallel_for(context, ceil_div(out, strip_rows) * column_tasks, nanoseconds,
               [&](int64_t task, int thread) {
                 const int64_t row = task / column_tasks * strip_rows;
                 const int64_t column = task % column_tasks * strip_columns;
                 const int64_t m = std::min(strip_rows, out - row);
                 const int64_t n = std::min(strip_columns, in - column);
                 T* const dw = strips + thread * strip;
                 Context& serial = task_context();
                 matmul<T>(serial, {dw, n, 1}, {dz + row, 1, out}, {x + column, in, 1},
                           {1, m, n, rows});
                 if (n == in) {
                   rule(weight, row * in, m * n, dw);
                 } else {
                   for (int64_t r = 0; r < m; ++r)
                     rule(weight, (row + r) * in + column, n, dw + r * n);
                 }
               });
}

template void linear_backward_update(Context&, float*, const OptimTensor<float>&, float*,
                                     const float*, const float*, const float*, bool, LinearSize,
                                     Activation, const UpdateRule<float>&);
template void linear_backward_update(Context&, double*, const OptimTensor<double>&, double*,
                                     const double*, const double*, const double*, bool, LinearSize,
                                     Activation, const UpdateRule<double>&);

}  // namespace tilegrad::cpu
