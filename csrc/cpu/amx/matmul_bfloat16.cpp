// SPDX-License-Identifier: MIT
// Math: sum[i,j] (+)= sum_q a[i,2q] b[2q,j] + a[i,2q+1] b[2q+1,j], tiles of 16 x 16 sums.
// Shapes: A tiles (16, 32) bfloat16, B tiles (16, 16) pairs of bfloat16; 2 x 2 tiles of C at a
//   time, or fewer at the edges. Rows, columns and steps beyond the matrix are packed as zeros.
// Parallelism: one tdpbf16ps is 8192 multiplications, 16 cycles; four of them share four tiles.
// Memory: per 32 steps of k 4 KiB of packed tiles; a panel of A (32, 512) lies in L1, B comes from
//   L2. A is read in place where it lies along k in whole tiles.
// Source: Intel 64 and IA-32 Optimization Reference Manual, chapter on AMX. Subnormal operands and
//   sums count as zero: the instruction ignores MXCSR.
#include "../simd/matmul_bfloat16.hpp"

#include <immintrin.h>

#include "../isa.hpp"
#include "../simd/matmul_bfloat16_pack.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

constexpr int kTileRows = 16;
constexpr int kTileBytes = 64;  // of a row
constexpr int kTileSteps = 32;
constexpr int kTileSize = kTileBytes / sizeof(float);

static_assert(kPackedSteps == kTileSteps && kLanes == kTileSize);

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// All eight tiles are whole: 0 .. 3 hold sums, 4 and 5 A, 6 and 7 B.
void begin() {
  TileConfig config;
  for (int t = 0; t < 8; ++t) {
    config.row_bytes[t] = kTileBytes;
    config.rows[t] = kTileRows;
  }
  // GCC 12 declares only 8 of the 64 bytes that the intrinsic reads.
  asm volatile("" : : "r"(&config) : "memory");
  _tile_loadconfig(&config);
}

void end() { _tile_release(); }

template <int kRowTiles, int kColumnTiles>
void tiles(const Bfloat16Tile& t) {
  constexpr bool kTwoRows = kRowTiles == 2, kTwoColumns = kColumnTiles == 2;
  const int64_t sum_bytes = t.sum_row * static_cast<int64_t>(sizeof(float));
  const int64_t a_bytes = t.a_row * static_cast<int64_t>(sizeof(bfloat16));
  constexpr int64_t kBytesOfB = int64_t{kColumnTiles} * kTileBytes;
  float* const below = t.sum + kTileRows * t.sum_row;
  asm volatile("" : : : "memory");  // the loads below say nothing about memory
  if (t.add) {
    _tile_loadd(0, t.sum, sum_bytes);
    if constexpr (kTwoColumns) _tile_loadd(1, t.sum + kTileSize, sum_bytes);
    if constexpr (kTwoRows) _tile_loadd(2, below, sum_bytes);
    if constexpr (kTwoRows && kTwoColumns) _tile_loadd(3, below + kTileSize, sum_bytes);
  } else {
    _tile_zero(0);
    if constexpr (kTwoColumns) _tile_zero(1);
    if constexpr (kTwoRows) _tile_zero(2);
    if constexpr (kTwoRows && kTwoColumns) _tile_zero(3);
  }
  const char* a = static_cast<const char*>(t.a);
  const char* b = static_cast<const char*>(t.b);
  for (int64_t p = 0; p < t.k; p += kTileSteps) {
    _tile_loadd(6, b, kBytesOfB);
    _tile_loadd(4, a, a_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kTwoColumns) {
      _tile_loadd(7, b + kTileBytes, kBytesOfB);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kTwoRows) {
      _tile_loadd(5, a + kTileRows * a_bytes, a_bytes);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (kTwoRows && kTwoColumns) _tile_dpbf16ps(3, 5, 7);
    a += kTileBytes;
    b += kTileRows * kBytesOfB;
  }
  _tile_stored(0, t.sum, sum_bytes);
  if constexpr (kTwoColumns) _tile_stored(1, t.sum + kTileSize, sum_bytes);
  if constexpr (kTwoRows) _tile_stored(2, below, sum_bytes);
  if constexpr (kTwoRows && kTwoColumns) _tile_stored(3, below + kTileSize, sum_bytes);
  asm volatile("" : : : "memory");
}

void tile(const Bfloat16Tile& t, int rows, int vectors) {
  if (rows > kTileRows) {
    return vectors == 2 ? tiles<2, 2>(t) : tiles<2, 1>(t);
  }
  return vectors == 2 ? tiles<1, 2>(t) : tiles<1, 1>(t);
}

int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

// Rows along k, whole tiles of them.
PanelOfA pack_a(void* packed, const bfloat16* a, int64_t row_stride, int64_t step, int64_t rows,
                int64_t k) {
  if (step == 1 && k % kTileSteps == 0 && rows % kTileRows == 0) return {a, row_stride, 1};
  const int64_t pitch = round_up(k, kTileSteps) / 2;  // in words
  const int64_t whole = round_up(rows, kTileRows);
  uint32_t* const panel = static_cast<uint32_t*>(packed);
  if (step == 1) {
    for (int64_t r = 0; r < whole; ++r) {
      for (int64_t q = 0; q < pitch; q += kLanes) {
        const Vec<float> words =
            r < rows ? load_words(a + r * row_stride + 2 * q, k - 2 * q) : Vec<float>(0.0f);
        __builtin_memcpy(panel + r * pitch + q, &words, sizeof(words));
      }
    }
    return {panel, 2 * pitch, 1};
  }
  for (int64_t r = 0; r < whole; r += kLanes) {
    for (int64_t q = 0; q < pitch; q += kLanes) {
      Vec<float> pairs[kLanes];
      for (Vec<float>& pair : pairs) pair = Vec<float>(0.0f);
      const int64_t steps = k - 2 * q < 2 * kLanes ? k - 2 * q : 2 * kLanes;
      words_across_k(a + r * row_stride + 2 * q * step, row_stride, step, rows - r, kLanes, steps,
                     [&](int64_t, int64_t pair, Words words) { pairs[pair] = as_float(words); });
      transpose_round<1>(pairs);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        __builtin_memcpy(panel + (r + i) * pitch + q, &pairs[i], sizeof(pairs[i]));
      }
    }
  }
  return {panel, 2 * pitch, 1};
}

// Pairs of steps, lanes side by side; a last odd step and the rest of a tile are zero.
void pack_b(void* packed, int64_t width, const bfloat16* b, int64_t lane_stride, int64_t step,
            int64_t lanes, int64_t k) {
  uint32_t* const panel = static_cast<uint32_t*>(packed);
  pack_words(b, lane_stride, step, lanes, width, k, [=](int64_t l, int64_t q, Words words) {
    __builtin_memcpy(panel + q * width + l, &words, sizeof(words));
  });
  const int64_t used = (k + 1) / 2 * width;
  __builtin_memset(panel + used, 0,
                   static_cast<size_t>(round_up(k, kTileSteps) / 2 * width - used) * 4);
}

}  // namespace

template <>
const MatmulBfloat16Kernels& table() {
  static constexpr MatmulBfloat16Kernels kTable = {
      kLanes,    {0, 2 * kTileRows, 2 * kTileRows, 0, 0},
      kTileRows, sizeof(bfloat16),
      true,      begin,
      end,       tile,
      pack_a,    pack_b,
      0,         nullptr,
      scale};
  return kTable;
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
