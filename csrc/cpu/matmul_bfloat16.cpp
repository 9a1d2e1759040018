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
#include <type_traits>

#include "isa.hpp"
#include "matmul_bfloat16_path.hpp"
#include "parallel.hpp"
#include "simd/activation.hpp"
#include "simd/convert.hpp"
#include "variant.hpp"

namespace tilegrad::cpu {
namespace {

constexpr int64_t kLine = 64;
constexpr int64_t kPage = 4096;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

double product_nanoseconds(int64_t m, int64_t n, int64_t k) {
  return static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) / 75;
}

// C is bfloat16 or float.
template <class C>
struct Product {
  const MatmulBfloat16Kernels& kernel;
  const ActivationKernels<float>& activation;
  const ConvertKernels& convert;
  Matrix<C> c;
  Matrix<const bfloat16> a, b;
  MatmulSize size;
  float alpha, beta;
  const float* bias;
  Activation f;
  bfloat16* preactivation;
  Bfloat16Path path;

  int64_t width() const { return int64_t{path.vectors} * kernel.lanes; }
  // Of a tile with so many columns left.
  int vectors(int64_t columns) const {
    const auto needed = static_cast<int>(ceil_div(columns, kernel.lanes));
    return needed >= 3 ? path.vectors : std::min(needed, path.vectors);
  }
  int64_t sum_row() const { return path.task_columns + kernel.lanes; }
  int64_t bytes_of_a() const {  // a panel
    return round_up(round_up(path.rows, kernel.row_multiple) * (path.depth + kPackedSteps) *
                        kernel.element_bytes,
                    kLine);
  }
  int64_t bytes_of_sums() const {
    return round_up(path.task_rows, kernel.row_multiple) * sum_row() *
           static_cast<int64_t>(sizeof(float));
  }
  int64_t bytes_of_row() const {
    return round_up(path.task_columns * static_cast<int64_t>(sizeof(float)), kLine);
  }
  // Packed B: panels of width() columns, of each all depths, of which the last may be smaller.
  int64_t offset_in_b(int64_t p, int64_t columns) const {
    return (columns / width() * round_up(size.k, kPackedSteps) + p) * width() *
           kernel.element_bytes;
  }
  int64_t bytes_of_b(int64_t columns) const { return offset_in_b(0, round_up(columns, width())); }
};

// Rows [row, row_end) and columns [column, column_end) of a matrix of the batch.
struct Block {
  int64_t batch, row, row_end, column, column_end;
};

// A thread's memory for one task after another.
template <class C>
struct Scratch {
  std::byte *a, *b;
  float *sum, *before, *old;

  Scratch(std::byte* memory, const Product<C>& x) : a(memory) {
    b = a + panels(x) * x.bytes_of_a();
    std::byte* rows = b + (x.path.share_b ? 0 : x.path.depth * x.width() * x.kernel.element_bytes);
    sum = reinterpret_cast<float*>(rows);
    before = reinterpret_cast<float*>(rows + x.bytes_of_sums());
    old = reinterpret_cast<float*>(rows + x.bytes_of_sums() + x.bytes_of_row());
  }
  static int64_t panels(const Product<C>& x) {
    return x.path.share_b ? 1 : ceil_div(x.path.task_rows, x.path.rows);
  }
  static int64_t bytes(const Product<C>& x) {
    const int64_t of_b = x.path.share_b ? 0 : x.path.depth * x.width() * x.kernel.element_bytes;
    return round_up(panels(x) * x.bytes_of_a() + of_b + x.bytes_of_sums() + 2 * x.bytes_of_row(),
                    kPage);
  }
};

template <class C>
void finish(const Product<C>& x, const Block& block, int64_t i, int64_t rows, Scratch<C>& scratch) {
  const int64_t n = block.column_end - block.column;
  for (int64_t r = i; r < i + rows; ++r) {
    float* const sum = scratch.sum + (r - block.row) * x.sum_row();
    C* const c = x.c.data + block.batch * x.c.batch_stride + r * x.c.row_stride + block.column;
    if (x.alpha != 1 || x.beta != 0) {
      const float* old = nullptr;
      if constexpr (std::is_same_v<C, float>) {
        if (x.beta != 0) old = c;
      } else if (x.beta != 0) {
        x.convert.widen(scratch.old, c, n);
        old = scratch.old;
      }
      x.kernel.scale(sum, old, x.alpha, x.beta, n);
    }
    if (x.bias != nullptr || x.preactivation != nullptr || x.f.kind != ActivationKind::identity) {
      x.activation.bias_forward(sum, scratch.before,
                                x.bias == nullptr ? nullptr : x.bias + block.column, n, x.f);
    }
    if (x.preactivation != nullptr) {
      x.convert.narrow(x.preactivation + (block.batch * x.size.m + r) * x.size.n + block.column,
                       scratch.before, n);
    }
    if constexpr (std::is_same_v<C, float>) {
      std::copy(sum, sum + n, c);
    } else {
      x.convert.narrow(c, sum, n);
    }
  }
}

template <class C>
PanelOfA pack_a(const Product<C>& x, int64_t batch, int64_t i, int64_t rows, int64_t p, int64_t k,
                std::byte* packed) {
  return x.kernel.pack_a(
      packed, x.a.data + batch * x.a.batch_stride + i * x.a.row_stride + p * x.a.col_stride,
      x.a.row_stride, x.a.col_stride, rows, k);
}

template <class C>
void pack_b(const Product<C>& x, int64_t batch, int64_t p, int64_t k, int64_t j, int64_t columns,
            std::byte* packed) {
  x.kernel.pack_b(packed, int64_t{x.vectors(columns)} * x.kernel.lanes,
                  x.b.data + batch * x.b.batch_stride + p * x.b.row_stride + j * x.b.col_stride,
                  x.b.col_stride, x.b.row_stride, std::min(columns, x.width()), k);
}

template <class C>
void run_tile(const Product<C>& x, const Block& block, int64_t i, int64_t rows, int64_t j,
              PanelOfA a, const std::byte* b, int64_t p, int64_t k, Scratch<C>& scratch) {
  x.kernel.tile({scratch.sum + (i - block.row) * x.sum_row() + (j - block.column), x.sum_row(),
                 a.data, a.row, a.step, b, k, p > 0},
                static_cast<int>(rows), x.vectors(block.column_end - j));
}

template <class C>
void run_task_of_shared_b(const Product<C>& x, const Block& block, const std::byte* packed_b,
                          int64_t first, Scratch<C>& scratch) {
  const int64_t k = x.size.k;
  for (int64_t p = 0; p == 0 || p < k; p += x.path.depth) {
    const int64_t kb = std::min(x.path.depth, k - p);
    for (int64_t i = block.row; i < block.row_end; i += x.path.rows) {
      const int64_t rows = std::min<int64_t>(x.path.rows, block.row_end - i);
      const PanelOfA a = pack_a(x, block.batch, i, rows, p, kb, scratch.a);
      for (int64_t j = block.column; j < block.column_end; j += x.width()) {
        run_tile(x, block, i, rows, j, a, packed_b + x.offset_in_b(p, j - first), p, kb, scratch);
      }
      if (p + kb == k) finish(x, block, i, rows, scratch);
    }
  }
}

template <class C>
void run_task(const Product<C>& x, const Block& block, Scratch<C>& scratch) {
  const int64_t k = x.size.k;
  PanelOfA panels[kMostOwnPanels];
  for (int64_t p = 0; p == 0 || p < k; p += x.path.depth) {
    const int64_t kb = std::min(x.path.depth, k - p);
    const auto for_panels = [&](auto f) {
      for (int64_t panel = 0, i = block.row; i < block.row_end; ++panel, i += x.path.rows) {
        f(panels[panel], panel, i, std::min<int64_t>(x.path.rows, block.row_end - i));
      }
    };
    for_panels([&](PanelOfA& a, int64_t panel, int64_t i, int64_t rows) {
      a = pack_a(x, block.batch, i, rows, p, kb, scratch.a + panel * x.bytes_of_a());
    });
    for (int64_t j = block.column; j < block.column_end; j += x.width()) {
      pack_b(x, block.batch, p, kb, j, block.column_end - j, scratch.b);
      for_panels([&](PanelOfA& a, int64_t, int64_t i, int64_t rows) {
        run_tile(x, block, i, rows, j, a, scratch.b, p, kb, scratch);
      });
    }
  }
  finish(x, block, block.row, block.row_end - block.row, scratch);
}

// All of a few rows.
template <class C>
void run_rows(const Product<C>& x, const Block& block, Scratch<C>& scratch) {
  const auto [batches, m, n, k] = x.size;
  for (int64_t p = 0; p < k; p += x.path.depth) {
    const int64_t kb = std::min(x.path.depth, k - p);
    // Row by row, so that each lies along k.
    const int64_t a_row = x.path.depth + kPackedSteps;
    float* const a = reinterpret_cast<float*>(scratch.a);
    for (int64_t i = 0; i < m; ++i) {
      pack_a(x, block.batch, i, 1, p, kb, reinterpret_cast<std::byte*>(a + i * a_row));
    }
    x.kernel.rows({scratch.sum, x.sum_row(), a, a_row,
                   x.b.data + block.batch * x.b.batch_stride + p * x.b.row_stride +
                       block.column * x.b.col_stride,
                   x.b.col_stride, x.b.row_stride, kb, block.column_end - block.column, p > 0},
                  static_cast<int>(m));
  }
  finish(x, block, 0, m, scratch);
}

// f(a block, the thread's scratch memory) for the blocks of rows [0, m) and columns [first, end).
template <class C, class F>
void for_blocks(Context& context, const Product<C>& x, int64_t batch, int64_t batches,
                int64_t first, int64_t end, F f) {
  const auto [unused, m, n, k] = x.size;
  const int64_t row_tasks = ceil_div(m, x.path.task_rows);
  const int64_t column_tasks = ceil_div(end - first, x.path.task_columns);
  WorkspaceScope scope(context);
  const int64_t bytes = Scratch<C>::bytes(x);
  std::byte* const memory = context.workspace->take<std::byte>(
      std::min<int64_t>(thread_limit(context), batches * row_tasks * column_tasks) * bytes);
  parallel_for(context, batches * row_tasks * column_tasks,
               product_nanoseconds(m, end - first, k) * static_cast<double>(batches),
               [&](int64_t task, int thread) {
                 const int64_t row = task / column_tasks % row_tasks * x.path.task_rows;
                 const int64_t column = first + task % column_tasks * x.path.task_columns;
                 const Block block = {batch + task / (row_tasks * column_tasks), row,
                                      std::min(m, row + x.path.task_rows), column,
                                      std::min(end, column + x.path.task_columns)};
                 Scratch<C> scratch(memory + thread * bytes, x);
                 x.kernel.begin();
                 f(block, scratch);
                 x.kernel.end();
               });
}

template <class C>
void run_shared(Context& context, const Product<C>& x, int64_t batch) {
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
    for_blocks(context, x, batch, 1, first, end, [&](const Block& block, Scratch<C>& scratch) {
      run_task_of_shared_b(x, block, packed_b, first, scratch);
    });
  }
}

template <class C>
void run(Context& context, Matrix<C> c, Matrix<const bfloat16> a, Matrix<const bfloat16> b,
         MatmulSize size, double alpha, double beta, const Epilogue<bfloat16>& epilogue);

// Few rows of C, from C^T = B^T A^T: the larger operand is read where it lies, once.
template <class C>
void run_turned(Context& context, Product<C> x) {
  const auto [batches, m, n, k] = x.size;
  WorkspaceScope scope(context);
  x.path.share_b = true;  // its scratch memory has no panel of B
  x.path.rows = x.kernel.row_multiple;
  x.path.task_rows = m;
  x.path.task_columns = n;
  Scratch<C> scratch(context.workspace->take<std::byte>(Scratch<C>::bytes(x)), x);
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
  const Product<C> product = {
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
             [&](const Block& block, Scratch<C>& scratch) {
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
