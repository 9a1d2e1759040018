// SPDX-License-Identifier: MIT
// Math: c[i,j] = f(alpha sum_p a[i,p] b[p,j] + beta c[i,j] + bias[j]), a and b contiguous along p.
// Shapes: few rows or few columns of C; an operand that lies otherwise is copied first.
// Parallelism: lanes run along p; a task owns a block of C. A block of k (dot_block) at a time is
//   summed in registers and added to C, so neither tile nor thread count shows in the bits.
// Memory: the larger operand is read once, in panels of a tile's height; a panel stays in L1 while
//   the smaller operand passes by. While a tile runs, what the next one reads comes to L1.
#include <algorithm>

#include "matmul_product.hpp"
#include "parallel.hpp"

namespace tilegrad::cpu {
namespace {

// Rows of an operand, each contiguous along k.
template <class T>
struct RowsAlongK {
  const T* data;
  int64_t stride;
  const T* row(int64_t i) const { return data + i * stride; }
};

// What is left is cut so that the last tile is not a sliver.
int64_t tile_size(int64_t left, int64_t most) {
  return left <= most ? left : left < 2 * most ? ceil_div(left, 2) : most;
}

template <class T>
void run_task(const Product<T>& x, int64_t batch, RowsAlongK<T> a, RowsAlongK<T> b, int64_t i0,
              int64_t i1, int64_t j0, int64_t j1, int64_t kb, T beta) {
  T* const c = x.c.data + batch * x.c.batch_stride;
  const bool by_columns = x.size.n >= x.size.m;
  int64_t i = i0, j = j0;
  while (i < i1 && j < j1) {
    const int64_t rows = std::min<int64_t>(x.path.rows, i1 - i);
    const int64_t columns = tile_size(j1 - j, x.dot.max_columns);
    int64_t next_i = i + (by_columns || j + columns == j1 ? rows : 0);
    int64_t next_j = j + (!by_columns || i + rows == i1 ? columns : 0);
    const bool same_panel = by_columns ? next_j == j : next_i == i;
    if (by_columns && !same_panel) next_i = i0;
    if (!by_columns && !same_panel) next_j = j0;
    const bool last = next_i >= i1 || next_j >= j1;
    const bool ahead_in_a = last || by_columns == same_panel;
    x.dot.tile({c + i * x.c.row_stride + j, x.c.row_stride, a.row(i), a.stride, b.row(j), b.stride,
                kb, x.alpha, beta, ahead_in_a ? a.row(last ? i : next_i) : b.row(next_j),
                ahead_in_a ? a.stride : b.stride},
               static_cast<int>(rows), static_cast<int>(columns));
    i = next_i;
    j = next_j;
  }
}

// target[r * k + p] = source[r * row_stride + p * k_stride]
template <class T>
void copy_along_k(const Product<T>& x, T* target, const T* source, int64_t row_stride,
                  int64_t k_stride, int64_t rows, int64_t k) {
  x.kernel.pack(target, k, source, k_stride, row_stride, k, rows);
}

}  // namespace

template <class T>
void run_dots(Context& context, const Product<T>& x) {
  const auto [batches, m, n, k] = x.size;
  const MatmulPath& path = x.path;
  const int64_t depth = dot_block(k, sizeof(T));
  const int64_t row_tasks = ceil_div(m, path.task_rows);
  const int64_t column_tasks = ceil_div(n, path.task_columns);

  WorkspaceScope scope(context);
  T* const packed_a = path.pack_a ? context.workspace->take<T>(batches * m * k) : nullptr;
  T* const packed_b = path.pack_b ? context.workspace->take<T>(batches * n * k) : nullptr;
  if (path.pack_a || path.pack_b) {
    parallel_for(context, batches, static_cast<double>(batches * (m + n) * k), [&](int64_t b, int) {
      if (path.pack_a) {
        copy_along_k(x, packed_a + b * m * k, x.a.data + b * x.a.batch_stride, x.a.row_stride,
                     x.a.col_stride, m, k);
      }
      if (path.pack_b) {
        copy_along_k(x, packed_b + b * n * k, x.b.data + b * x.b.batch_stride, x.b.col_stride,
                     x.b.row_stride, n, k);
      }
    });
  }
  parallel_for(context, batches * row_tasks * column_tasks,
               matmul_nanoseconds(m, n, k, sizeof(T)) * static_cast<double>(batches),
               [&](int64_t task, int) {
                 const int64_t batch = task / (row_tasks * column_tasks);
                 const int64_t i0 = task / column_tasks % row_tasks * path.task_rows;
                 const int64_t i1 = std::min(m, i0 + path.task_rows);
                 const int64_t j0 = task % column_tasks * path.task_columns;
                 const int64_t j1 = std::min(n, j0 + path.task_columns);
                 RowsAlongK<T> a = {x.a.data + batch * x.a.batch_stride, x.a.row_stride};
                 RowsAlongK<T> b = {x.b.data + batch * x.b.batch_stride, x.b.col_stride};
                 if (path.pack_a) a = {packed_a + batch * m * k, k};
                 if (path.pack_b) b = {packed_b + batch * n * k, k};
                 for (int64_t p = 0; p < k; p += depth) {
                   run_task(x, batch, {a.data + p, a.stride}, {b.data + p, b.stride}, i0, i1, j0,
                            j1, std::min(depth, k - p), p == 0 ? x.beta : T(1));
                 }
                 run_epilogue(x, batch, i0, i1 - i0, j0, j1 - j0);
               });
}

template void run_dots(Context&, const Product<float>&);
template void run_dots(Context&, const Product<double>&);

}  // namespace tilegrad::cpu
