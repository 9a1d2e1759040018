// SPDX-License-Identifier: MIT
// Which rung of the matmul ladder the public call takes: a pure function of shape, type, layout and
// device, apart from the algorithms. Alignment and addresses have no say, so that the same product
// has the same bits wherever its operands lie.
#pragma once

#include <cstdint>
#include <string_view>

#include "../ops.hpp"
#include "matmul/hopper_choice.hpp"
#include "matmul_precision.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

struct MatmulTraits {
  int element_bytes;                    // 2, 4 or 8
  int compute_capability;               // 80 for 8.0
  bool b_along_k = false;               // b is contiguous down its columns: "NT"
  bool whole_a = true, whole_b = true;  // the operand is made of runs of whole 16 bytes
  Float32Precision float32 = Float32Precision::highest;  // of elements of 4 bytes
  bool k_major = false;                                  // both operands are contiguous along k
};

// Whether a matrix of that layout is made of runs of whole chunks of 16 bytes, wherever it lies:
// the copy engine of Hopper can read it, or a copy of it.
template <class T>
bool whole_chunks(const Matrix<const T>& x, int64_t rows, int64_t cols) {
  constexpr int64_t kChunk = 16 / sizeof(T);
  const bool by_row = x.col_stride == 1;
  const int64_t length = by_row ? cols : rows;
  const int64_t other = by_row ? x.row_stride : x.col_stride;
  return (by_row || x.row_stride == 1) && length % kChunk == 0 && other % kChunk == 0 &&
         other >= length && x.batch_stride % kChunk == 0 && x.batch_stride >= 0;
}

// Which shapes rung hopper_tf32 does: rows of k are whole chunks of 16 bytes, coordinates fit the
// copy engine. Layout and alignment do not matter: it copies what the engine cannot read.
inline bool hopper_tf32_serves(const MatmulSize& size) {
  return size.k >= 4 && size.k % 4 == 0 && hopper_choice::counts_fit(size);
}

namespace matmul_choice {

// Tiles of c that give every multiprocessor of a large GPU something to do.
inline constexpr int64_t kFewTiles = 96;

// Products of a and b below which a launch is over before Hopper's ring has filled: 128 cubed.
inline constexpr double kFewProducts = 1 << 21;

// An operand that the copy engine cannot read is copied first, which moves each of its elements
// twice. That pays where an element that is copied is used often: n times one of a, m times one of
// b, m n / (m + n) times on average if both are. Copying both takes 4 (m + n) k bytes at 4 TB/s,
// the product 2 m n k flop at 700 TFLOP/s; at 128 uses the copy is 2.7 times as long as the
// product, together still less than rung 9 takes.
inline constexpr double kManyUses = 128;

inline bool copies_pay(const MatmulSize& size, const MatmulTraits& traits) {
  const auto m = static_cast<double>(size.m), n = static_cast<double>(size.n);
  return m * n >= kManyUses * ((traits.whole_a ? 0 : m) + (traits.whole_b ? 0 : n));
}

inline int64_t tiles(const MatmulSize& size, int64_t tile_m, int64_t tile_n) {
  return size.batch * ((size.m + tile_m - 1) / tile_m) * ((size.n + tile_n - 1) / tile_n);
}

// The rungs without tensor cores. They all sum in one chain over k: which one is taken shows in
// the time, not in the bits.
inline std::string_view simt(const MatmulSize& size, const MatmulTraits& traits) {
  // A tile would be mostly empty. With few rows and b along n, every element of b is read once, by
  // neighbouring threads; otherwise b has to be turned in shared memory.
  if (size.m <= 8 && !traits.b_along_k) return "coalesced";
  if (size.m <= 32 || size.n <= 32) return "shared";
  const int64_t edge = traits.element_bytes == 8 ? 64 : 128;
  if (tiles(size, edge, edge) >= kFewTiles) return "warp_tile";
  // Smaller tiles, more of them: the device is full before a thread's work is.
  if (tiles(size, 64, 64) >= kFewTiles / 2) return "tile_1d";
  return "shared";
}

// tf32 by wgmma. Operands along k are read as they lie, from the size on at which 16-bit ones are.
// Transposing one moves 8 bytes an element, which the faster product gives back where the element
// is used about 1000 times (a prediction: 4 TB/s, 300 against 495 TFLOP/s).
inline bool hopper_tf32(const MatmulSize& size, const MatmulTraits& traits, double products) {
  constexpr int64_t kUses = 1024;
  if (traits.compute_capability != 90 || !hopper_tf32_serves(size) || size.k < 64) return false;
  return traits.k_major ? products >= kFewProducts
                        : size.m >= kUses && size.n >= kUses && tiles(size, 128, 128) >= kFewTiles;
}

}  // namespace matmul_choice

inline std::string_view choose_matmul(const MatmulSize& size, const MatmulTraits& traits) {
  const auto m = static_cast<double>(size.m), n = static_cast<double>(size.n);
  const double products = static_cast<double>(size.batch) * m * n * static_cast<double>(size.k);
  // Few rows too: the copy engine reads b at the speed of memory, and k is cut into pieces until
  // every multiprocessor reads (matmul/hopper_choice.hpp).
  if (traits.element_bytes == 2 && traits.compute_capability == 90 && size.k >= 64 && size.n > 8 &&
      products >= matmul_choice::kFewProducts && matmul_choice::copies_pay(size, traits)) {
    return "hopper";
  }
  // float32 stays float32 unless asked: tf32 has 10 bits of significand. Few rows are bound by
  // reading b, not by arithmetic.
  const bool large = size.k >= 16 && size.m > 8 && size.n > 8;
  const bool tensor = large && traits.element_bytes == 2;
  if (tensor && traits.compute_capability >= 80) return "tensor_core";
  if (large && traits.element_bytes == 4 && traits.compute_capability >= 80) {
    if (traits.float32 == Float32Precision::high) return "tf32x3";
    if (traits.float32 == Float32Precision::medium) {
      return matmul_choice::hopper_tf32(size, traits, products) ? "hopper_tf32" : "tensor_core";
    }
  }
  return matmul_choice::simt(size, traits);
}

}  // namespace tilegrad::TILEGRAD_BACKEND
