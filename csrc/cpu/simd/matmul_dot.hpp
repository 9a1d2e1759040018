// SPDX-License-Identifier: MIT
// The register tile for operands that both lie contiguous along k: it reads them where they are, so
// that nothing is packed and an operand of few uses is read once.
#pragma once

#include <cstdint>

namespace tilegrad::cpu {

// c[r * c_row + j] = alpha sum_p a[r * a_row + p] b[j * b_row + p] + beta c[r * c_row + j]; c is
// not read where beta is 0. Lane l adds p = l, l + lanes, .. in one chain of fma, then the lanes
// meet in a tree: an element's bits do not depend on the tile it is in.
template <class T>
struct MatmulDot {
  T* c;
  int64_t c_row;
  const T* a;
  int64_t a_row;
  const T* b;
  int64_t b_row;
  int64_t k;
  T alpha, beta;
  const T* ahead;  // rows of what the next tile reads, brought to L1 meanwhile
  int64_t ahead_row;
};

template <class T>
struct MatmulDotKernels {
  int max_rows, max_columns;
  void (*tile)(const MatmulDot<T>& tile, int rows, int columns);
};

}  // namespace tilegrad::cpu
