// SPDX-License-Identifier: MIT
// Math: c[i,j] = f(alpha sum_p a[i,p] b[p,j] + beta c[i,j] + bias[j]), b contiguous along p.
// Shapes: few rows of C; operands that lie otherwise are copied first.
// Parallelism: lanes run along p; a task owns a few columns of C. A block of k (dot_block) at a
//   time is summed in registers and added to C: neither tile nor thread count shows in the bits.
// Memory: B is read once, in panels of a tile's columns, which stay in L1 while all of A, packed,
//   passes by; meanwhile the next panel comes to L1.
#include <algorithm>

#include "matmul_product.hpp"
#include "parallel.hpp"

namespace tilegrad::cpu {
namespace {

// Up to here the last tile of a panel brings in the next panel, else each of them a part of it.
constexpr int64_t kFewTiles = 2;
constexpr int64_t kOwnBytes = 128 * 1024;  // of A that every thread packs for itself
template <class T>
constexpr int64_t kLine = 64 / sizeof(T);

// What is left is cut so that the last tile is not a sliver.
int64_t tile_columns(int64_t left, int64_t most) {
  return left > most && left < 2 * most ? ceil_div(left, 2) : std::min(left, most);
}

// Columns [begin, end) of C, p < k, from rows along k: of A packed, of B^T b_row apart.
template <class T>
void run_task(const Product<T>& x, T* c, const T* a, const T* b, int64_t b_row, int64_t columns,
              int64_t k, T beta) {
  const int64_t m = x.size.m;
  const int64_t rows_step = ceil_div(k, x.kernel.lanes) * x.kernel.lanes;
  const bool few = ceil_div(m, x.path.rows) <= kFewTiles;
  for (int64_t j = 0; j < columns;) {
    const int64_t width = tile_columns(columns - j, x.dot.max_columns);
    const T* const panel = b + j * b_row;
    const bool last_panel = j + width == columns;
    for (int64_t i = 0; i < m; i += x.path.rows) {
      const int64_t rows = std::min<int64_t>(x.path.rows, m - i);
      const bool all = few && i + rows == m && !last_panel;
      const int64_t row_ahead = last_panel || (few && !all) ? 0
                                : all ? width
                                      : width + std::min(i / x.path.rows, width - 1);
      x.dot.tile({c + i * x.c.row_stride + j, x.c.row_stride, a + i * rows_step, panel, b_row, k,
                  x.alpha, beta, panel + row_ahead * b_row, all},
                 static_cast<int>(rows), static_cast<int>(width));
    }
    j += width;
  }
}

// A of a batch in tiles, block after block of k: `tiles` holds m x (k + a vector), `rows` holds A
// along k, where it lies otherwise. Rows [begin, end), begin a multiple of a tile's.
template <class T>
void pack_rows(const Product<T>& x, int64_t batch, int64_t begin, int64_t end, T* tiles, T* rows) {
  const int64_t m = x.size.m, k = x.size.k;
  const int64_t depth = dot_block(k, sizeof(T));
  const int64_t height = x.path.rows;
  const T* from = x.a.data + batch * x.a.batch_stride;
  int64_t from_row = x.a.row_stride;
  if (x.path.pack_a) {
    x.kernel.pack(rows + begin * k, k, from + begin * from_row, x.a.col_stride, from_row, k,
                  end - begin);
    from = rows;
    from_row = k;
  }
  for (int64_t i = begin; i < end; i += height) {
    const int64_t count = std::min(height, end - i);
    for (int64_t p = 0; p < k; p += depth) {
      const int64_t kb = std::min(depth, k - p);
      const int64_t step = ceil_div(kb, x.kernel.lanes) * x.kernel.lanes;
      x.dot.pack(tiles + p * m + i * step, from + i * from_row + p, from_row, count, kb);
    }
  }
}

}  // namespace

template <class T>
void run_dots(Context& context, const Product<T>& x) {
  const auto [batches, m, n, k] = x.size;
  const MatmulPath& path = x.path;
  const int64_t depth = dot_block(k, sizeof(T));
  const int64_t task_columns = path.task_columns;
  const int64_t threads = thread_limit(context);
  // A small A is packed by every thread: it would take longer to come from another core's cache.
  const bool own = m * k * static_cast<int64_t>(sizeof(T)) <= kOwnBytes;
  const int64_t copies = own ? threads : 1;
  const int64_t tiles_size = ceil_div(m * (k + x.kernel.lanes), kLine<T>) * kLine<T>;

  WorkspaceScope scope(context);
  T* const tiles = context.workspace->take<T>(copies * tiles_size);
  T* const rows = path.pack_a ? context.workspace->take<T>(copies * m * k) : nullptr;
  T* const packed_b =
      path.pack_b ? context.workspace->take<T>(threads * task_columns * k) : nullptr;
  int64_t* const packed_batch = context.workspace->take<int64_t>(threads * kLine<int64_t>);
  for (int64_t t = 0; t < threads; ++t) packed_batch[t * kLine<int64_t>] = -1;
  for (int64_t batch = 0; batch < batches; ++batch) {
    const int64_t batch_of_a = x.a.batch_stride == 0 ? 0 : batch;
    if (!own && batch_of_a == batch) {
      const int64_t task_rows = ceil_div(32, path.rows) * path.rows;
      parallel_for(context, ceil_div(m, task_rows), 0.5 * static_cast<double>(m * k),
                   [&](int64_t task, int) {
                     const int64_t begin = task * task_rows;
                     pack_rows(x, batch, begin, std::min(m, begin + task_rows), tiles, rows);
                   });
    }
    T* const c = x.c.data + batch * x.c.batch_stride;
    parallel_for(context, ceil_div(n, task_columns), matmul_nanoseconds(m, n, k, sizeof(T)),
                 [&](int64_t task, int thread) {
                   const int64_t copy = own ? thread : 0;
                   T* const a = tiles + copy * tiles_size;
                   int64_t& packed = packed_batch[thread * kLine<int64_t>];
                   if (own && packed != batch_of_a) {
                     pack_rows(x, batch, 0, m, a, path.pack_a ? rows + copy * m * k : nullptr);
                     packed = batch_of_a;
                   }
                   const int64_t j = task * task_columns;
                   const int64_t columns = std::min(n - j, task_columns);
                   const T* b = x.b.data + batch * x.b.batch_stride + j * x.b.col_stride;
                   int64_t b_row = x.b.col_stride;
                   if (path.pack_b) {
                     T* const rows_of_b = packed_b + thread * task_columns * k;
                     x.kernel.pack(rows_of_b, k, b, x.b.row_stride, b_row, k, columns);
                     b = rows_of_b;
                     b_row = k;
                   }
                   for (int64_t p = 0; p < k; p += depth) {
                     run_task(x, c + j, a + p * m, b + p, b_row, columns, std::min(depth, k - p),
                              p == 0 ? x.beta : T(1));
                   }
                   run_epilogue(x, batch, 0, m, j, columns);
                 });
  }
}

template void run_dots(Context&, const Product<float>&);
template void run_dots(Context&, const Product<double>&);

}  // namespace tilegrad::cpu
