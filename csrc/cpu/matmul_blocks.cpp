// SPDX-License-Identifier: MIT
// Math: c = f(alpha a b + beta c + bias), large.
// Parallelism: a task owns a block of C and shares nothing with others: what a core packs for
//   itself lies in its own cache, and no join divides the blocks of k.
// Memory: of each block of k a task packs its columns of B (half of L2), then panel after panel of
//   A (in L1). Packing moves lines between caches and takes 4 to 8 % of the time.
// Source: Goto and van de Geijn 2008; Van Zee and van de Geijn 2015 (BLIS).
#include <algorithm>

#include "matmul_panels.hpp"
#include "parallel.hpp"

namespace tilegrad::cpu {
namespace {

struct Block {
  int64_t batch, row_begin, row_end, column_begin, column_end;
};

// All of k for a block of C. `packed` holds depth x (its columns, in whole tiles, then a tile's
// rows).
template <class T>
void run_block(const Product<T>& x, const Block& block, T* packed) {
  const int64_t k = x.size.k;
  const int64_t width = x.width();
  const int64_t columns = block.column_end - block.column_begin;
  const int64_t tiles = ceil_div(columns, width);
  T* const packed_b = packed;
  T* const packed_a = packed + (x.path.pack_b ? x.depth() * tiles * width : 0);
  for (int64_t p = 0; p < k; p += x.depth()) {
    const int64_t kb = std::min(x.depth(), k - p);
    for (int64_t tile = 0; tile < tiles && x.path.pack_b; ++tile) {
      const int64_t j = tile * width;
      pack_b(x, block.batch, p, kb, block.column_begin + j, std::min(width, columns - j),
             packed_b + j * kb);
    }
    for (int64_t i = block.row_begin; i < block.row_end; i += x.path.rows) {
      const int64_t rows = std::min<int64_t>(x.path.rows, block.row_end - i);
      Panel<T> a = in_place_a(x, block.batch, i, p);
      if (x.path.pack_a) {
        pack_a(x, block.batch, i, rows, p, kb, packed_a);
        a = {packed_a, 1, rows};
      }
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t j = block.column_begin + tile * width;
        const Panel<T> b = x.path.pack_b ? Panel<T>{packed_b + tile * width * kb, 1, width}
                                         : in_place_b(x, block.batch, p, j);
        run_tile(x, block.batch, i, rows, j, std::min(width, block.column_end - j), p, kb, a, b);
      }
      if (p + kb == k) run_epilogue(x, block.batch, i, rows, block.column_begin, columns);
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
  const int64_t packed_columns = path.pack_b ? path.task_columns : 0;
  const int64_t elements = ceil_div(x.depth() * (packed_columns + path.rows), kLine) * kLine;

  WorkspaceScope scope(context);
  const int64_t tasks = batches * row_tasks * column_tasks;
  const int64_t threads = std::min<int64_t>(thread_limit(context), tasks);
  T* const scratch = context.workspace->take<T>(threads * elements);
  parallel_for(context, tasks,
               static_cast<double>(batches) * matmul_nanoseconds(m, n, k, sizeof(T)),
               [&](int64_t task, int thread) {
                 const int64_t row = task / column_tasks % row_tasks * path.task_rows;
                 const int64_t column = task % column_tasks * path.task_columns;
                 run_block(x,
                           {task / column_tasks / row_tasks, row, std::min(m, row + path.task_rows),
                            column, std::min(n, column + path.task_columns)},
                           scratch + thread * elements);
               });
}

template void run_blocks(Context&, const Product<float>&);
template void run_blocks(Context&, const Product<double>&);

}  // namespace tilegrad::cpu
