// SPDX-License-Identifier: MIT
// The kernels of a product of bfloat16 matrices. A tile of C is summed in float32 from packed
// panels of A and B, whose form is the ISA's own: float32, or pairs of bfloat16 for AMX.
// csrc/cpu/matmul_bfloat16.cpp cuts a product into them.
#pragma once

#include <cstdint>

#include "../../context.hpp"
#include "matmul.hpp"

namespace tilegrad::cpu {

constexpr int64_t kPackedSteps = 32;  // a panel has room for a multiple of these steps of k

struct Bfloat16Tile {
  float* sum;  // whole vectors and whole row_multiples of rows are written
  int64_t sum_row;
  const void* a;
  int64_t a_row, a_step;  // in elements of the panel
  const void* b;
  int64_t k;
  bool add;  // to what sum holds, else to zero
};

// A panel of A where pack_a left it, which may be A itself.
struct PanelOfA {
  const void* data;
  int64_t row, step;
};

// The same for few rows, with B where it lies: b[l * lane_stride + p * step], one of the two 1.
struct Bfloat16Rows {
  float* sum;
  int64_t sum_row;
  const float* a;  // along k
  int64_t a_row;
  const bfloat16* b;
  int64_t lane_stride, step;
  int64_t k;
  int64_t columns;  // whole vectors of sum are written
  bool add;
};

struct MatmulBfloat16Kernels {
  static constexpr bool kHasTiles = true;  // AMX has its own

  int lanes;                          // columns of C in a vector
  int max_rows[kMaxTileVectors + 1];  // by vectors; 0 where there is no tile of that width
  int row_multiple;
  int element_bytes;  // of a panel
  bool reads_a;       // pack_a leaves an A that lies along k where it is, but for broken tiles

  // Loads and releases what a thread needs for pack_a, pack_b and tile.
  void (*begin)();
  void (*end)();
  // sum[r,j] (+)= sum_p a[r,p] b[p,j] for vectors * lanes columns. An element's order of additions
  // depends on k alone.
  void (*tile)(const Bfloat16Tile& tile, int rows, int vectors);
  // a[r * row_stride + p * step]; `packed` has round_up(rows, row_multiple) * (round_up(k,
  // kPackedSteps) + kPackedSteps) elements.
  PanelOfA (*pack_a)(void* packed, const bfloat16* a, int64_t row_stride, int64_t step,
                     int64_t rows, int64_t k);
  // b[l * lane_stride + p * step], zero for lanes <= l < width; `packed` has width * round_up(k,
  // kPackedSteps) elements.
  void (*pack_b)(void* packed, int64_t width, const bfloat16* b, int64_t lane_stride, int64_t step,
                 int64_t lanes, int64_t k);
  // For at most few_rows rows of A, 0 where there is no such kernel; the bits are those of tile.
  int few_rows;
  void (*rows)(const Bfloat16Rows& problem, int rows);
  // sum = alpha sum + beta c over n elements; a null c counts as zeros.
  void (*scale)(float* sum, const float* c, float alpha, float beta, int64_t n);
};

}  // namespace tilegrad::cpu
