// SPDX-License-Identifier: MIT
// Math: sum[r,j] (+)= sum_p a[r,p] b[p,j] of bfloat16, widened to float32 when they are packed.
// Shapes: the float32 product's tiles: 14 x 2 vectors of AVX-512, 6 x 2 of AVX2, 4 x 2 else.
// Parallelism: that of the tile.
// Memory: panels of float32, 4 bytes an element; A keeps the order of its memory.
// Source: matmul.cpp.
#include "matmul_bfloat16.hpp"

#include "../isa.hpp"
#include "matmul_bfloat16_pack.hpp"
#include "matmul_bfloat16_rows.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

void nothing() {}

void tile(const Bfloat16Tile& t, int rows, int vectors) {
  table<MatmulKernels<float>>().tile({t.sum, t.sum_row, static_cast<const float*>(t.a), t.a_row,
                                      t.a_step, static_cast<const float*>(t.b), vectors * kLanes,
                                      t.k, vectors * kLanes, 1.0f, t.add ? 1.0f : 0.0f},
                                     rows, vectors);
}

PanelOfA pack_a(void* packed, const bfloat16* a, int64_t row_stride, int64_t step, int64_t rows,
                int64_t k) {
  float* const panel = static_cast<float*>(packed);
  if (row_stride == 1 && rows > 1) {
    for (int64_t p = 0; p < k; ++p) widen(panel + p * rows, a + p * step, rows);
    return {panel, 1, rows};
  }
  const int64_t pitch = k + kLanes;  // rows 2 KiB apart would meet in two sets of L1
  for (int64_t r = 0; r < rows; ++r) {
    const bfloat16* from = a + r * row_stride;
    float* const to = panel + r * pitch;
    if (step == 1) {
      widen(to, from, k);
    } else {
      for (int64_t p = 0; p < k; ++p) {
        to[p] = __builtin_bit_cast(float, uint32_t{from[p * step].bits} << 16);
      }
    }
  }
  return {panel, pitch, 1};
}

void pack_b(void* packed, int64_t width, const bfloat16* b, int64_t lane_stride, int64_t step,
            int64_t lanes, int64_t k) {
  float* const panel = static_cast<float*>(packed);
  if (lane_stride == 1) {
    for (int64_t p = 0; p < k; ++p) {
      for (int64_t l = 0; l < width; l += kLanes) {
        const bfloat16* from = b + p * step + l;
        const int64_t left = lanes - l;
        const Halves x =
            left >= kLanes ? load_halves(from) : load_halves(from, left > 0 ? left : 0);
        widened(x).store(panel + p * width + l);
      }
    }
    return;
  }
  pack_words(b, lane_stride, step, lanes, width, k, [=](int64_t l, int64_t q, Words words) {
    float* const to = panel + 2 * q * width + l;
    as_float(words << 16).store(to);
    as_float(words & 0xffff0000u).store(to + width);  // a last odd step has room
  });
}

MatmulBfloat16Kernels kernels_of(const MatmulKernels<float>& product) {
  const int* rows = product.max_rows;
  return {kLanes,   {rows[0], rows[1], rows[2], rows[3], rows[4]},
          1,        sizeof(float),
          false,    nothing,
          nothing,  tile,
          pack_a,   pack_b,
          kFewRows, few_rows,
          scale};
}

}  // namespace

template <>
const MatmulBfloat16Kernels& table() {
  static const MatmulBfloat16Kernels kTable = kernels_of(table<MatmulKernels<float>>());
  return kTable;
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
