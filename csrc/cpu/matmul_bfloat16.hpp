// SPDX-License-Identifier: MIT
// Products of bfloat16 matrices beyond what ops.hpp has, and how they are cut: a pure function of
// sizes, which changes no bit of a result except by the depth, which depends on k alone.
#pragma once

#include "../ops.hpp"
#include "simd/matmul_bfloat16.hpp"

namespace tilegrad::cpu {

// c = alpha a b + beta c, not rounded to bfloat16. Strides and edges as for matmul.
void matmul_to_float(Context& context, Matrix<float> c, Matrix<const bfloat16> a,
                     Matrix<const bfloat16> b, MatmulSize size, double alpha = 1, double beta = 0);

constexpr int64_t kMostOwnPanels = 64;  // of rows of A in a task that packs B itself

struct Bfloat16Path {
  int vectors;            // width of a tile
  int rows;               // of a tile
  int64_t depth;          // steps of k at a time
  bool share_b;           // all tasks read one packed block of B, else each packs its own
  int64_t block_columns;  // share_b: columns of B packed at a time
  int64_t task_rows;      // a multiple of `rows`; without share_b all of m
  int64_t task_columns;   // a multiple of the tile's width
};

Bfloat16Path choose_bfloat16_path(MatmulSize size, const MatmulBfloat16Kernels& kernel,
                                  int threads);

}  // namespace tilegrad::cpu
