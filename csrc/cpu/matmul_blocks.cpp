// SPDX-License-Identifier: MIT
// Math: c = f(alpha a b + beta c + bias), large.
// Parallelism: a task owns a block of C and shares nothing with others: what a core packs for
//   itself lies in its own cache, and no join divides the blocks of k.
// Memory: of each block of k a task packs some columns of B at a time (half of L2), and panels of A
//   (in L1) beside the first of them, which it keeps for the others. Packing moves lines between
//   caches; an element of A is packed once a task.
// Source: Goto and van de Geijn 2008; Van Zee and van de Geijn 2015 (BLIS).
#include <algorithm>

#include "matmul_panels.hpp"
#include "parallel.hpp"

namespace tilegrad::cpu {
namespace {

struct Block {
  int64_t batch, row_begin, row_end, column_begin, column_end;
};

// Where rows of A lie side by side, panels share cache lines: so many are packed together, so few
// steps of k at a time that L1 holds the lines until the last of them has read its part.
constexpr int64_t kPanels = 8;
constexpr int64_t kSteps = 16;

template <class T>
bool rows_share_lines(const Product<T>& x) {
  return x.a.row_stride == 1;
}

// Rows of A that are packed at a time.
template <class T>
int64_t rows_together(const Product<T>& x) {
  return x.path.rows * (rows_share_lines(x) ? kPanels : 1);
}

// Rows of packed A that a task keeps.
template <class T>
int64_t rows_kept(const Product<T>& x) {
  return x.path.block_columns < x.path.task_columns ? x.path.task_rows : rows_together(x);
}

// Rows i .. end of A, steps p .. p + k, panel after panel.
template <class T>
void pack_panels(const Product<T>& x, int64_t batch, int64_t i, int64_t end, int64_t p, int64_t k,
                 T* packed) {
  const int64_t most = rows_share_lines(x) ? kSteps : k;
  for (int64_t q = 0; q < k; q += most) {
    const int64_t steps = std::min(most, k - q);
    for (int64_t r = i; r < end; r += x.path.rows) {
      const int64_t rows = std::min<int64_t>(x.path.rows, end - r);
      pack_a(x, batch, r, rows, p + q, steps, packed + (r - i) * k + q * rows);
    }
  }
}

// All of k for a block of C. `packed_b` holds path.block_columns, x.depth() deep.
template <class T>
void run_block(const Product<T>& x, const Block& block, T* packed_a, T* packed_b) {
  const auto [batch, row_begin, row_end, column_begin, column_end] = block;
  const int64_t k = x.size.k;
  const int64_t width = x.width();
  for (int64_t p = 0; p < k; p += x.depth()) {
    const int64_t kb = std::min(x.depth(), k - p);
    for (int64_t first = column_begin; first < column_end; first += x.path.block_columns) {
      const int64_t columns = std::min(x.path.block_columns, column_end - first);
      for (int64_t j = 0; j < columns && x.path.pack_b; j += width) {
        pack_b(x, batch, p, kb, first + j, std::min(width, columns - j), packed_b + j * kb);
      }
      for (int64_t i = row_begin; i < row_end; i += x.path.rows) {
        const int64_t rows = std::min<int64_t>(x.path.rows, row_end - i);
        Panel<T> a = in_place_a(x, batch, i, p);
        if (x.path.pack_a) {
          const int64_t row = i - row_begin;
          T* const packed = packed_a + row % rows_kept(x) * kb;
          if (first == column_begin && row % rows_together(x) == 0) {
            pack_panels(x, batch, i, std::min(row_end, i + rows_together(x)), p, kb, packed);
          }
          a = {packed, 1, rows};
        }
        for (int64_t j = 0; j < columns; j += width) {
          const Panel<T> b = x.path.pack_b ? Panel<T>{packed_b + j * kb, 1, width}
                                           : in_place_b(x, batch, p, first + j);
          run_tile(x, batch, i, rows, first + j, std::min(width, columns - j), p, kb, a, b);
        }
        if (p + kb == k) run_epilogue(x, batch, i, rows, first, columns);
      }
    }
  }
}

}  // namespace

template <class T>
void run_blocks(Context& context, const Product<T>& x) {
  const auto [batches, m, n, k] = x.size;
  const MatmulPath& path = x.path;
  const int64_t row_tasks = ceil_div(m, path.task_rows);
  const int64_t column_tasks = ceil_div(n, path.task_columns);
  constexpr int64_t kLine = 64 / sizeof(T);
  const int64_t rows_elements = path.pack_a * ceil_div(x.depth() * rows_kept(x), kLine) * kLine;
  const int64_t elements =
      rows_elements + path.pack_b * ceil_div(x.depth() * path.block_columns, kLine) * kLine;

  WorkspaceScope scope(context);
  const int64_t tasks = batches * row_tasks * column_tasks;
  const int64_t threads = std::min<int64_t>(thread_limit(context), tasks);
  T* const scratch = context.workspace->take<T>(threads * elements);
  parallel_for(context, tasks,
               static_cast<double>(batches) * matmul_nanoseconds(m, n, k, sizeof(T)),
               [&](int64_t task, int thread) {
                 const int64_t row = task / column_tasks % row_tasks * path.task_rows;
                 const int64_t column = task % column_tasks * path.task_columns;
                 T* const packed_a = scratch + thread * elements;
                 run_block(x,
                           {task / column_tasks / row_tasks, row, std::min(m, row + path.task_rows),
                            column, std::min(n, column + path.task_columns)},
                           packed_a, packed_a + rows_elements);
               });
}

template void run_blocks(Context&, const Product<float>&);
template void run_blocks(Context&, const Product<double>&);

}  // namespace tilegrad::cpu
