// SPDX-License-Identifier: MIT
// How a product of bfloat16 matrices is cut: a pure function of sizes. It changes no bit of a
// result except by the depth, which depends on k alone.
#pragma once

#include "../ops.hpp"
#include "matmul_path.hpp"
#include "simd/matmul_bfloat16.hpp"

namespace tilegrad::cpu {

constexpr int64_t kMostOwnPanels = 64;  // of rows of A in a task that packs B itself

struct Bfloat16Path {
  int vectors;            // width of a tile
  int rows;               // of a tile
  int64_t depth;          // steps of k at a time
  bool turn;              // few rows: compute C^T = B^T A^T, where B^T is read as A; no more is set
  bool read_b;            // few rows: B is read where it lies
  bool share_b;           // all tasks read one packed block of B, else each packs its own
  int64_t block_columns;  // share_b: columns of B packed at a time
  int64_t task_rows;      // a multiple of `rows`; without share_b all of m
  int64_t task_columns;   // a multiple of the tile's width
};

Bfloat16Path choose_bfloat16_path(MatmulSize size, MatrixStrides b,
                                  const MatmulBfloat16Kernels& kernel, int threads);

}  // namespace tilegrad::cpu
