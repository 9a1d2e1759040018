// SPDX-License-Identifier: MIT
// How a matrix product is cut: pure functions of sizes and strides, apart from the algorithm. No
// choice here changes a bit of the result except k_block, which depends on k and the type alone.
#pragma once

#include <cstdint>

#include "../ops.hpp"

namespace tilegrad::cpu {

struct MatmulPath {
  enum Kind { columns, blocks };
  Kind kind;
  int vectors;            // width of a tile in vectors
  int rows;               // rows of a tile
  bool pack_a, pack_b;    // columns: else read in place
  int64_t task_rows;      // a multiple of `rows`
  int64_t task_columns;   // a multiple of the tile's width
  int64_t block_columns;  // blocks: columns of B packed at a time
};

struct MatrixStrides {
  int64_t row, column;
};

struct MatmulTiles {
  int lanes;
  const int* max_rows;  // by vectors
  int64_t element_bytes;
};

// Steps of k summed in registers before C is updated: equal parts of at most 2 KiB a row of A.
int64_t k_block(int64_t k, int64_t element_bytes);

// Estimated serial time.
double matmul_nanoseconds(int64_t m, int64_t n, int64_t k, int64_t element_bytes);

MatmulPath choose_matmul_path(MatmulSize size, MatrixStrides a, MatrixStrides b,
                              const MatmulTiles& tiles, int threads);

}  // namespace tilegrad::cpu
