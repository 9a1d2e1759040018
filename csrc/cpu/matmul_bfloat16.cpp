// SPDX-License-Identifier: MIT
// Math: c = f(alpha a b + beta c + bias) of bfloat16 operands, summed in float32, rounded once.
// Shapes: a (m, k), b (k, n), c (m, n), any strides, a batch of each.
// Parallelism: a task owns a block of C and sums it over p = 0 .. k-1, a depth of k after another:
//   neither the cut, nor the tile, nor the thread count shows in the bits of an element.
// Memory: a task keeps its sums in float32 until k is done. Where A has many panels of rows, B is
//   packed once for all tasks and a panel of A lies in L1; where it has few, they wait in L2 while
//   the task packs one panel of B after another. For few rows B is not packed at all.
// Source: matmul.cpp.
#include "matmul_bfloat16.hpp"

#include <algorithm>
#include <cstddef>

#include "isa.hpp"
#include "matmul_bfloat16_tasks.hpp"
#include "parallel.hpp"
#include "variant.hpp"

namespace tilegrad::cpu {
namespace {

double product_nanoseconds(int64_t m, int64_t n, int64_t k) {
  return static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) / 75;
}

// f(a block, the thread's scratch memory) for the blocks of rows [0, m) and columns [first, end).
template <class C, class F>
void for_blocks(Context& context, const Bfloat16Product<C>& x, int64_t batch, int64_t batches,
                int64_t first, int64_t end, F f) {
  const auto [unused, m, n, k] = x.size;
  const int64_t row_tasks = ceil_div(m, x.path.task_rows);
  const int64_t column_tasks = ceil_div(end - first, x.path.task_columns);
  WorkspaceScope scope(context);
  const int64_t bytes = Bfloat16Scratch<C>::bytes(x);
  std::byte* const memory = context.workspace->take<std::byte>(
      std::min<int64_t>(thread_limit(context), batches * row_tasks * column_tasks) * bytes);
  parallel_for(context, batches * row_tasks * column_tasks,
               product_nanoseconds(m, end - first, k) * static_cast<double>(batches),
               [&](int64_t task, int thread) {
                 const int64_t row = task / column_tasks % row_tasks * x.path.task_rows;
                 const int64_t column = first + task % column_tasks * x.path.task_columns;
                 const Bfloat16Block block = {batch + task / (row_tasks * column_tasks), row,
                                              std::min(m, row + x.path.task_rows), column,
                                              std::min(end, column + x.path.task_columns)};
                 Bfloat16Scratch<C> scratch(memory + thread * bytes, x);
                 x.kernel.begin();
                 f(block, scratch);
                 x.kernel.end();
               });
}

template <class C>
void run_shared(Context& context, const Bfloat16Product<C>& x, int64_t batch) {
  const auto [unused, m, n, k] = x.size;
  for (int64_t first = 0; first < n; first += x.path.block_columns) {
    const int64_t end = std::min(n, first + x.path.block_columns);
    WorkspaceScope scope(context);
    std::byte* const packed_b = context.workspace->take<std::byte>(x.bytes_of_b(end - first));
    const int64_t panels = ceil_div(end - first, x.width());
    parallel_for(context, panels * ceil_div(k, x.path.depth),
                 0.3 * static_cast<double>((end - first) * k), [&](int64_t task, int) {
                   const int64_t p = task / panels * x.path.depth;
                   const int64_t j = first + task % panels * x.width();
                   pack_b(x, batch, p, std::min(x.path.depth, k - p), j, end - j,
                          packed_b + x.offset_in_b(p, j - first));
                 });
    for_blocks(context, x, batch, 1, first, end,
               [&](const Bfloat16Block& block, Bfloat16Scratch<C>& scratch) {
                 run_task_of_shared_b(x, block, packed_b, first, scratch);
               });
  }
}

template <class C>
void run(Context& context, Matrix<C> c, Matrix<const bfloat16> a, Matrix<const bfloat16> b,
         MatmulSize size, double alpha, double beta, const Epilogue<bfloat16>& epilogue);

// Few rows of C, from C^T = B^T A^T: the larger operand is read where it lies, once.
template <class C>
void run_turned(Context& context, Bfloat16Product<C> x) {
  const auto [batches, m, n, k] = x.size;
  WorkspaceScope scope(context);
  x.path.share_b = true;  // its scratch memory has no panel of B
  x.path.rows = x.kernel.row_multiple;
  x.path.task_rows = m;
  x.path.task_columns = n;
  Bfloat16Scratch<C> scratch(context.workspace->take<std::byte>(Bfloat16Scratch<C>::bytes(x)), x);
  float* const turned = context.workspace->take<float>(n * m);
  for (int64_t batch = 0; batch < batches; ++batch) {
    run(context, Matrix<float>{turned, m, 1},
        {x.b.data + batch * x.b.batch_stride, x.b.col_stride, x.b.row_stride},
        {x.a.data + batch * x.a.batch_stride, x.a.col_stride, x.a.row_stride}, {1, n, m, k}, 1, 0,
        {});
    for (int64_t i = 0; i < m; ++i) {
      float* const row = scratch.sum + i * x.sum_row();
      for (int64_t j = 0; j < n; ++j) row[j] = turned[j * m + i];
    }
    finish(x, {batch, 0, m, 0, n}, 0, m, scratch);
  }
}

template <class C>
void run(Context& context, Matrix<C> c, Matrix<const bfloat16> a, Matrix<const bfloat16> b,
         MatmulSize size, double alpha, double beta, const Epilogue<bfloat16>& epilogue) {
  if (size.batch <= 0 || size.m <= 0 || size.n <= 0) return;
  if (size.k == 0) {  // nothing is read: a and b may be null
    a.row_stride = a.col_stride = a.batch_stride = 0;
    b = a;
  }
  const auto& kernel = kernels<MatmulBfloat16Kernels>();
  const bool column = size.n == 1 && size.m > 1 && c.row_stride == 1;
  if (column && epilogue.bias == nullptr && !kernel.reads_a) {
    // A column of C as a row: c^T = b^T a^T fills whole vectors, with the same bits.
    return run(context, Matrix<C>{c.data, size.m, 1, c.batch_stride},
               {b.data, b.col_stride, b.row_stride, b.batch_stride},
               {a.data, a.col_stride, a.row_stride, a.batch_stride},
               {size.batch, 1, size.m, size.k}, alpha, beta, epilogue);
  }
  WorkspaceScope scope(context);
  const auto& convert = kernels<ConvertKernels>();
  float* bias = nullptr;
  if (epilogue.bias != nullptr) {
    bias = context.workspace->take<float>(size.n);
    convert.widen(bias, epilogue.bias, size.n);
  }
  const Bfloat16Product<C> product = {
      kernel,
      kernels<ActivationKernels<float>>(),
      convert,
      c,
      a,
      b,
      size,
      static_cast<float>(alpha),
      static_cast<float>(beta),
      bias,
      epilogue.activation,
      epilogue.preactivation,
      choose_bfloat16_path(size, {b.row_stride, b.col_stride}, kernel, thread_limit(context))};
  if (product.path.turn) return run_turned(context, product);
  if (product.path.share_b) {
    for (int64_t batch = 0; batch < size.batch; ++batch) run_shared(context, product, batch);
    return;
  }
  for_blocks(context, product, 0, size.batch, 0, size.n,
             [&](const Bfloat16Block& block, Bfloat16Scratch<C>& scratch) {
               if (product.path.read_b) return run_rows(product, block, scratch);
               run_task(product, block, scratch);
             });
}

}  // namespace

void matmul_to_float(Context& context, Matrix<float> c, Matrix<const bfloat16> a,
                     Matrix<const bfloat16> b, MatmulSize size, double alpha, double beta) {
  run(context, c, a, b, size, alpha, beta, {});
}

template <>
void matmul(Context& context, Matrix<bfloat16> c, Matrix<const bfloat16> a,
            Matrix<const bfloat16> b, MatmulSize size, double alpha, double beta,
            const Epilogue<bfloat16>& epilogue, std::string_view variant) {
  check_no_variant("matmul", variant);
  run(context, c, a, b, size, alpha, beta, epilogue);
}

}  // namespace tilegrad::cpu
