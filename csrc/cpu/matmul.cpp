// SPDX-License-Identifier: MIT
// Math: c = f(alpha a b + beta c + bias).
// Shapes: a (m, k), b (k, n), c (m, n), any strides, a batch of each.
// Parallelism: a task owns a block of C. Sums run over p = 0 .. k-1 in one chain of fma within a
//   block of k, and block after block: of `columns` and `blocks`, tiles and thread count nothing
//   shows in the bits. The sums of `dots` (matmul_dots.cpp) run in as many chains as a vector has
//   lanes; whether they do depends on sizes and the order of axes alone (sums_along_k).
// Memory: `columns` gives a task all of m and a few columns of B, read in place or packed by the
//   task. For `blocks` see matmul_blocks.cpp.
// Source: Goto and van de Geijn 2008; Van Zee and van de Geijn 2015 (BLIS).
#include <algorithm>

#include "isa.hpp"
#include "matmul_panels.hpp"
#include "parallel.hpp"
#include "variant.hpp"

namespace tilegrad::cpu {
namespace {

// columns: tasks share nothing but, at most, the packed A of one matrix of the batch.
template <class T>
void run_columns(Context& context, const Product<T>& x, int64_t first, int64_t count) {
  const auto [unused, m, n, k] = x.size;
  const MatmulPath& path = x.path;
  const int64_t width = x.width();
  const int64_t depth = x.depth();
  const int64_t row_tasks = ceil_div(m, path.task_rows);
  const int64_t column_tasks = ceil_div(n, path.task_columns);
  const double nanoseconds = matmul_nanoseconds(m, n, k, sizeof(T)) * static_cast<double>(count);

  WorkspaceScope scope(context);
  T* packed_a = path.pack_a ? context.workspace->take<T>(m * k) : nullptr;
  T* scratch = context.workspace->take<T>(thread_limit(context) * depth * width);
  if (path.pack_a) {
    parallel_for(context, ceil_div(m, path.rows), 1.0 * static_cast<double>(m * k),
                 [&](int64_t panel, int) {
                   const int64_t i = panel * path.rows;
                   const int64_t rows = std::min<int64_t>(path.rows, m - i);
                   for (int64_t p = 0; p < k; p += depth) {
                     const int64_t kb = std::min(depth, k - p);
                     pack_a(x, first, i, rows, p, kb, packed_a + p * m + i * kb);
                   }
                 });
  }
  parallel_for(context, count * row_tasks * column_tasks, nanoseconds, [&](int64_t task, int t) {
    const int64_t batch = first + task / (row_tasks * column_tasks);
    const int64_t row_begin = task / column_tasks % row_tasks * path.task_rows;
    const int64_t row_end = std::min(m, row_begin + path.task_rows);
    const int64_t column_begin = task % column_tasks * path.task_columns;
    const int64_t column_end = std::min(n, column_begin + path.task_columns);
    T* const packed_b = scratch + t * depth * width;
    for (int64_t block = 0; block < x.k_blocks(); ++block) {
      const int64_t p = block * depth;
      const int64_t kb = std::min(depth, k - p);
      for (int64_t j = column_begin; j < column_end; j += width) {
        const int64_t columns = std::min(width, column_end - j);
        // A tile loads whole vectors of B: a last panel that is not made of them is packed first.
        const bool whole = columns % x.kernel.lanes == 0 && columns != 3 * x.kernel.lanes;
        const bool copies = path.pack_b && whole && x.b.col_stride == 1 &&
                            columns == x.kernel.copying_vectors * x.kernel.lanes;
        Panel<T> b = in_place_b(x, batch, p, j);
        if (!whole || (path.pack_b && !copies)) {
          pack_b(x, batch, p, kb, j, columns, packed_b);
          b = {packed_b, 1, width};
        }
        for (int64_t i = row_begin; i < row_end; i += path.rows) {
          const int64_t rows = std::min<int64_t>(path.rows, row_end - i);
          Panel<T> a = in_place_a(x, batch, i, p);
          if (path.pack_a) a = {packed_a + p * m + i * kb, 1, rows};
          const bool copy_now = copies && i == row_begin;
          run_tile(x, batch, i, rows, j, columns, p, kb, a, b, copy_now ? packed_b : nullptr);
          if (copy_now) b = {packed_b, 1, width};
        }
      }
    }
    run_epilogue(x, batch, row_begin, row_end - row_begin, column_begin, column_end - column_begin);
  });
}

// C^T = B^T A^T in workspace, then transposed. A single column is a row already.
template <class T>
void run_turned(Context& context, const Product<T>& x) {
  const auto [batches, m, n, k] = x.size;
  const Matrix<const T> a = {x.b.data, x.b.col_stride, x.b.row_stride, x.b.batch_stride};
  const Matrix<const T> b = {x.a.data, x.a.col_stride, x.a.row_stride, x.a.batch_stride};
  const MatmulSize size = {batches, n, m, k};
  if (n == 1 && x.c.row_stride == 1) {
    matmul<T>(context, {x.c.data, m, 1, x.c.batch_stride}, a, b, size, x.alpha, x.beta);
  } else {
    WorkspaceScope scope(context);
    T* const turned = context.workspace->take<T>(2 * batches * n * m);
    T* const rows = turned + batches * n * m;
    matmul<T>(context, {turned, m, 1, n * m}, a, b, size, x.alpha);
    for (int64_t batch = 0; batch < batches; ++batch) {
      T* const c = x.c.data + batch * x.c.batch_stride;
      const bool direct = x.beta == 0 && x.c.row_stride == n;
      T* const target = direct ? c : rows + batch * n * m;
      x.kernel.pack(target, n, turned + batch * n * m, m, 1, n, m);
      for (int64_t i = 0; i < (direct ? 0 : m); ++i) {
        T* const row = c + i * x.c.row_stride;
        for (int64_t j = 0; j < n; ++j) {
          row[j] = x.beta == 0 ? target[i * n + j] : target[i * n + j] + x.beta * row[j];
        }
      }
    }
  }
  for (int64_t batch = 0; batch < batches; ++batch) run_epilogue(x, batch, 0, m, 0, n);
}

}  // namespace

template <class T>
void matmul(Context& context, Matrix<T> c, Matrix<const T> a, Matrix<const T> b, MatmulSize size,
            double alpha, double beta, const Epilogue<T>& epilogue, std::string_view variant) {
  check_no_variant("matmul", variant);
  if (size.batch <= 0 || size.m <= 0 || size.n <= 0) return;
  if (size.k == 0) {  // nothing is read: a and b may be null
    a.row_stride = a.col_stride = a.batch_stride = 0;
    b = a;
  }
  const auto& kernel = kernels<MatmulKernels<T>>();
  const auto& dot = kernels<MatmulDotKernels<T>>();
  const MatmulPath path =
      choose_matmul_path(size, {a.row_stride, a.col_stride}, {b.row_stride, b.col_stride},
                         {kernel.lanes, kernel.max_rows, dot.max_rows, dot.max_columns, sizeof(T)},
                         thread_limit(context));
  const Product<T> product = {kernel,
                              dot,
                              kernels<ActivationKernels<T>>(),
                              c,
                              a,
                              b,
                              size,
                              static_cast<T>(alpha),
                              static_cast<T>(beta),
                              epilogue,
                              path};
  if (path.turn) {
    run_turned(context, product);
  } else if (path.kind == MatmulPath::dots) {
    run_dots(context, product);
  } else if (path.kind == MatmulPath::blocks) {
    run_blocks(context, product);
  } else if (path.pack_a) {
    for (int64_t batch = 0; batch < size.batch; ++batch) run_columns(context, product, batch, 1);
  } else {
    run_columns(context, product, 0, size.batch);
  }
}

template void matmul(Context&, Matrix<float>, Matrix<const float>, Matrix<const float>, MatmulSize,
                     double, double, const Epilogue<float>&, std::string_view);
template void matmul(Context&, Matrix<double>, Matrix<const double>, Matrix<const double>,
                     MatmulSize, double, double, const Epilogue<double>&, std::string_view);

}  // namespace tilegrad::cpu
