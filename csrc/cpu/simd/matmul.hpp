// SPDX-License-Identifier: MIT
// The two kernels of a matrix product that every ISA supplies: one register tile of C, and the
// copy of a panel of A or B into the order in which the tile reads it. csrc/cpu/matmul.cpp cuts a
// product into them.
#pragma once

#include <cstdint>

namespace tilegrad::cpu {

constexpr int kMaxTileVectors = 4;

// c[r,j] = alpha sum_p a[r * a_row + p * a_step] b[p * b_step + j] + beta c[r * c_row + j] for
// j < columns; c is not read where beta is 0. The sum is one chain of fma over p = 0 .. k-1 that
// starts at 0, so an element's bits do not depend on the tile it is in. Of b whole vectors are
// read: b[p * b_step .. + vectors * lanes).
template <class T>
struct MatmulTile {
  T* c;
  int64_t c_row;
  const T* a;
  int64_t a_row, a_step;
  const T* b;
  int64_t b_step;
  int64_t k;
  int64_t columns;  // at most vectors * lanes
  T alpha, beta;
  T* b_copy = nullptr;  // not null: b is copied here on the way, vectors * lanes elements a step
};

template <class T>
struct MatmulKernels {
  int lanes;                          // elements of a vector
  int max_rows[kMaxTileVectors + 1];  // by vectors; 0 where there is no tile of that width
  int copying_vectors;                // the width of tiles that can copy b
  void (*tile)(const MatmulTile<T>& tile, int rows, int vectors);
  // packed[p * width + l] = source[l * lane_step + p * step] for l < lanes, 0 up to width, p < k.
  void (*pack)(T* packed, int64_t width, const T* source, int64_t lane_step, int64_t step,
               int64_t lanes, int64_t k);
};

}  // namespace tilegrad::cpu
