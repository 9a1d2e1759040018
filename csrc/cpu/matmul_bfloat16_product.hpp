// SPDX-License-Identifier: MIT
// A product of bfloat16 matrices on its way through matmul_bfloat16.cpp, and the memory of its
// tasks.
#pragma once

#include <cstddef>

#include "matmul_bfloat16_path.hpp"
#include "simd/activation.hpp"
#include "simd/convert.hpp"
#include "sizes.hpp"

namespace tilegrad::cpu {

// C is bfloat16 or float.
template <class C>
struct Bfloat16Product {
  static constexpr int64_t kLine = 64;

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
struct Bfloat16Block {
  int64_t batch, row, row_end, column, column_end;
};

// A thread's memory for one task after another.
template <class C>
struct Bfloat16Scratch {
  static constexpr int64_t kPage = 4096;

  std::byte *a, *b;
  float *sum, *before, *old;

  Bfloat16Scratch(std::byte* memory, const Bfloat16Product<C>& x) : a(memory) {
    b = a + panels(x) * x.bytes_of_a();
    std::byte* rows = b + (x.path.share_b ? 0 : x.path.depth * x.width() * x.kernel.element_bytes);
    sum = reinterpret_cast<float*>(rows);
    before = reinterpret_cast<float*>(rows + x.bytes_of_sums());
    old = reinterpret_cast<float*>(rows + x.bytes_of_sums() + x.bytes_of_row());
  }
  static int64_t panels(const Bfloat16Product<C>& x) {
    return x.path.share_b ? 1 : ceil_div(x.path.task_rows, x.path.rows);
  }
  static int64_t bytes(const Bfloat16Product<C>& x) {
    const int64_t of_b = x.path.share_b ? 0 : x.path.depth * x.width() * x.kernel.element_bytes;
    return round_up(panels(x) * x.bytes_of_a() + of_b + x.bytes_of_sums() + 2 * x.bytes_of_row(),
                    kPage);
  }
};

}  // namespace tilegrad::cpu
