// SPDX-License-Identifier: MIT
// The register tile for operands that lie contiguous along k: a few rows of A, packed, by rows of
// B^T where they are. Nothing is transposed, so a B of few uses is read once.
#pragma once

#include <cstdint>

namespace tilegrad::cpu {

// c[r * c_row + j] = alpha sum_p a[r,p] b[j * b_row + p] + beta c[r * c_row + j]; c is not read
// where beta is 0. Lane l adds p = l, l + lanes, .. in one chain of fma, then the lanes meet in a
// tree: an element's bits do not depend on the tile it is in.
template <class T>
struct MatmulDot {
  T* c;
  int64_t c_row;
  const T* a;  // packed
  const T* b;
  int64_t b_row;
  int64_t k;
  T alpha, beta;
  const T* ahead;  // rows of B^T that a later tile reads, brought to L1 meanwhile
  bool ahead_all;  // as many as this tile has columns, else one
};

template <class T>
struct MatmulDotKernels {
  int max_rows, max_columns;
  void (*tile)(const MatmulDot<T>& tile, int rows, int columns);
  // packed[(s * rows + r) * lanes + l] = a[r * a_row + s * lanes + l], 0 from k on.
  void (*pack)(T* packed, const T* a, int64_t a_row, int64_t rows, int64_t k);
};

}  // namespace tilegrad::cpu
