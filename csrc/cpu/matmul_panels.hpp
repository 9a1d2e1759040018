// SPDX-License-Identifier: MIT
// Panels of the operands of a product, in place or packed, and the tiles that read them.
#pragma once

#include "matmul_product.hpp"

namespace tilegrad::cpu {

template <class T>
struct Panel {
  const T* data;
  int64_t lane_step, step;
};

template <class T>
Panel<T> in_place_a(const Product<T>& x, int64_t batch, int64_t i, int64_t p) {
  return {x.a.data + batch * x.a.batch_stride + i * x.a.row_stride + p * x.a.col_stride,
          x.a.row_stride, x.a.col_stride};
}

// Of a B with contiguous rows.
template <class T>
Panel<T> in_place_b(const Product<T>& x, int64_t batch, int64_t p, int64_t j) {
  return {x.b.data + batch * x.b.batch_stride + p * x.b.row_stride + j, 1, x.b.row_stride};
}

template <class T>
void run_tile(const Product<T>& x, int64_t batch, int64_t i, int64_t rows, int64_t j,
              int64_t columns, int64_t p, int64_t k, Panel<T> a, Panel<T> b, T* b_copy = nullptr) {
  int vectors = static_cast<int>(ceil_div(columns, x.kernel.lanes));
  if (vectors == 3) vectors = 4;
  x.kernel.tile(
      {x.c.data + batch * x.c.batch_stride + i * x.c.row_stride + j, x.c.row_stride, a.data,
       a.lane_step, a.step, b.data, b.step, k, columns, x.alpha, p == 0 ? x.beta : T(1), b_copy},
      static_cast<int>(rows), vectors);
}

template <class T>
void pack_a(const Product<T>& x, int64_t batch, int64_t i, int64_t rows, int64_t p, int64_t k,
            T* packed) {
  x.kernel.pack(packed, rows,
                x.a.data + batch * x.a.batch_stride + i * x.a.row_stride + p * x.a.col_stride,
                x.a.row_stride, x.a.col_stride, rows, k);
}

template <class T>
void pack_b(const Product<T>& x, int64_t batch, int64_t p, int64_t k, int64_t j, int64_t columns,
            T* packed) {
  x.kernel.pack(packed, x.width(),
                x.b.data + batch * x.b.batch_stride + p * x.b.row_stride + j * x.b.col_stride,
                x.b.col_stride, x.b.row_stride, columns, k);
}

}  // namespace tilegrad::cpu
