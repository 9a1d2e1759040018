// SPDX-License-Identifier: MIT
// The kernel of a weight's gradient that is given to the optimiser from registers, on every ISA.
#pragma once

#include "optim.hpp"

namespace tilegrad::cpu {

// g[r,j] = sum_p dz[p * kRows + r] x[p * kColumns + j] for a whole tile, both packed with zeros
// beyond the edges; then the optimiser's rule on w[r * stride + j] and, at the same place, on its
// buffers, for r < rows and j < columns. The sum is one chain of fma from 0, as in matmul.
template <class T>
struct UpdateTile {
  const T* dz;
  const T* x;
  int64_t k;
  T *w, *first, *second, *third;
  int64_t stride;
  int rows, columns;
};

template <class C>
using TileKernel = void (*)(const UpdateTile<typename C::Value>& tile, const C&);

template <class T>
struct LinearUpdateKernels {
  int rows, columns;  // of a tile
  TileKernel<SgdConstants<T>> sgd;
  TileKernel<AdamConstants<T>> adam;
  TileKernel<RmspropConstants<T>> rmsprop;
  TileKernel<AdagradConstants<T>> adagrad;
};

}  // namespace tilegrad::cpu
