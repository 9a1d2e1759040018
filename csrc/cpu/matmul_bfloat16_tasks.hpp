// SPDX-License-Identifier: MIT
// What one thread does with a block of a product of bfloat16 matrices: pack, multiply, finish.
#pragma once

#include <algorithm>
#include <type_traits>

#include "matmul_bfloat16_product.hpp"

namespace tilegrad::cpu {

template <class C>
void finish(const Bfloat16Product<C>& x, const Bfloat16Block& block, int64_t i, int64_t rows,
            Bfloat16Scratch<C>& scratch) {
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
PanelOfA pack_a(const Bfloat16Product<C>& x, int64_t batch, int64_t i, int64_t rows, int64_t p,
                int64_t k, std::byte* packed) {
  return x.kernel.pack_a(
      packed, x.a.data + batch * x.a.batch_stride + i * x.a.row_stride + p * x.a.col_stride,
      x.a.row_stride, x.a.col_stride, rows, k);
}

template <class C>
void pack_b(const Bfloat16Product<C>& x, int64_t batch, int64_t p, int64_t k, int64_t j,
            int64_t columns, std::byte* packed) {
  x.kernel.pack_b(packed, int64_t{x.vectors(columns)} * x.kernel.lanes,
                  x.b.data + batch * x.b.batch_stride + p * x.b.row_stride + j * x.b.col_stride,
                  x.b.col_stride, x.b.row_stride, std::min(columns, x.width()), k);
}

template <class C>
void run_tile(const Bfloat16Product<C>& x, const Bfloat16Block& block, int64_t i, int64_t rows,
              int64_t j, PanelOfA a, const std::byte* b, int64_t p, int64_t k,
              Bfloat16Scratch<C>& scratch) {
  x.kernel.tile({scratch.sum + (i - block.row) * x.sum_row() + (j - block.column), x.sum_row(),
                 a.data, a.row, a.step, b, k, p > 0},
                static_cast<int>(rows), x.vectors(block.column_end - j));
}

template <class C>
void run_task_of_shared_b(const Bfloat16Product<C>& x, const Bfloat16Block& block,
                          const std::byte* packed_b, int64_t first, Bfloat16Scratch<C>& scratch) {
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
void run_task(const Bfloat16Product<C>& x, const Bfloat16Block& block,
              Bfloat16Scratch<C>& scratch) {
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
void run_rows(const Bfloat16Product<C>& x, const Bfloat16Block& block,
              Bfloat16Scratch<C>& scratch) {
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

}  // namespace tilegrad::cpu
