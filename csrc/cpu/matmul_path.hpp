// SPDX-License-Identifier: MIT
// How a matrix product is cut: pure functions of sizes and strides, apart from the algorithm. Two
// choices show in the bits of the result: k_block and dot_block, which depend on k and the type
// alone, and sums_along_k, which depends on sizes, ISA and the order of an operand's axes.
#pragma once

#include <cstdint>

#include "../ops.hpp"

namespace tilegrad::cpu {

struct MatmulPath {
  enum Kind { columns, blocks, dots };
  Kind kind;
  int vectors;            // width of a tile in vectors; unused by dots
  int rows;               // rows of a tile
  bool turn;              // compute C^T = B^T A^T and transpose it; the rest is not set
  bool pack_a, pack_b;    // columns, dots: else read in place
  int64_t task_rows;      // a multiple of `rows`
  int64_t task_columns;   // a multiple of the tile's width, or all
  int64_t block_columns;  // blocks: how many of them are packed at a time
};

struct MatrixStrides {
  int64_t row, column;
};

struct MatmulTiles {
  int lanes;
  const int* max_rows;  // by vectors
  int dot_rows, dot_columns;
  int64_t element_bytes;
};

// Whether rows or columns lie a multiple of half a page apart: their lines meet in few sets of L1.
bool lines_collide(MatrixStrides strides, int64_t element_bytes);

// Steps of k summed in registers before C is updated: equal parts of at most 2 KiB a row of A.
int64_t k_block(int64_t k, int64_t element_bytes);

// The same where lanes run along k.
int64_t dot_block(int64_t k, int64_t element_bytes);

// Whether the lanes of a vector run along k. They do where C has few rows and k is the faster axis
// of B in memory, so that transposing B would not pay; and where C is narrow and k is the faster
// axis of A. Batch, threads, alignment and gaps between elements do not matter.
bool sums_along_k(MatmulSize size, MatrixStrides a, MatrixStrides b, const MatmulTiles& tiles);

// Estimated serial time: of the multiply-adds, or of reading the operands.
double matmul_nanoseconds(int64_t m, int64_t n, int64_t k, int64_t element_bytes);

MatmulPath choose_matmul_path(MatmulSize size, MatrixStrides a, MatrixStrides b,
                              const MatmulTiles& tiles, int threads);

}  // namespace tilegrad::cpu
