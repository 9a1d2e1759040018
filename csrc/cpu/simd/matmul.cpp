// SPDX-License-Identifier: MIT
// Math: c[r,j] = alpha sum_p a[r,p] b[p,j] + beta c[r,j], one register tile of C.
// Shapes: rows x (vectors * kSize), at most 14 x 2 vectors of AVX-512, 6 x 2 of AVX2, 4 x 2 else;
//   1 and 4 vectors for products that are narrow or have few rows.
// Parallelism: every lane of every accumulator is an element of C; no sum crosses lanes.
// Memory: a step of p loads rows + vectors * kSize elements for rows * vectors * kSize fma.
// Source: Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008;
//   Van Zee and van de Geijn, "BLIS", 2015.
#include "matmul.hpp"

#include "../isa.hpp"
#include "matmul_pack.hpp"
#include "tile_rows.hpp"
#include "vec.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

constexpr int kCopyingVectors = 2;

// What else is done with b: long sums bring it from L2 to L1; that is not worth the cache misses
// beyond the end where the sum is short. A copy is for long sums.
enum class Reading { plain, ahead, copy };
constexpr int64_t kLongSum = 128;

template <class T, int kRows, int kVectors, Reading kReading>
void tile(const MatmulTile<T>& t) {
  using V = Vec<T>;
  V sum[kRows][kVectors];  // (rows, vectors)
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    if (t.k >= 16) {
      __builtin_prefetch(t.c + r * t.c_row, 1);
      __builtin_prefetch(t.c + r * t.c_row + t.columns - 1, 1);
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sum[r][v] = V(T(0));
  }
  // One pointer for three rows: [q], [q + row], [q + 2 row]. A pointer for each row would not fit
  // the general registers.
  constexpr int kGroups = (kRows + 2) / 3;
  const T* a[kGroups];
#pragma GCC unroll 5
  for (int g = 0; g < kGroups; ++g) a[g] = t.a + 3 * g * t.a_row;
  const int64_t row1 = t.a_row;
  int64_t row2 = 2 * t.a_row;
  const int64_t a_step = t.a_step;
  const int64_t b_step = t.b_step;
  const T* b = t.b;
  [[maybe_unused]] T* copy = t.b_copy;
  const int64_t ahead = 8 * b_step;
  for (int64_t p = t.k; p > 0; --p) {
    asm("" : "+r"(row2));  // else the compiler undoes the grouping
    V row_of_b[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      row_of_b[v] = V::load(b + v * V::kSize);
      if constexpr (kReading != Reading::plain) __builtin_prefetch(b + ahead + v * V::kSize);
      if constexpr (kReading == Reading::copy) row_of_b[v].store(copy + v * V::kSize);
    }
    if constexpr (kReading != Reading::plain) {  // the last line, where b is not aligned
      __builtin_prefetch(b + ahead + kVectors * V::kSize - 1);
    }
    if constexpr (kReading == Reading::copy) copy += kVectors * V::kSize;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const V element = a[r / 3][r % 3 == 0 ? 0 : r % 3 == 1 ? row1 : row2];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[r][v] = fma(element, row_of_b[v], sum[r][v]);
    }
#pragma GCC unroll 5
    for (int g = 0; g < kGroups; ++g) a[g] += a_step;
    b += b_step;
  }
  const int64_t c_row = t.c_row;
  T* c = t.c;
  if (t.columns == kVectors * V::kSize && t.alpha == T(1) && (t.beta == T(0) || t.beta == T(1))) {
    const bool add = t.beta == T(1);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r, c += c_row) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        T* out = c + v * V::kSize;
        (add ? V::load(out) + sum[r][v] : sum[r][v]).store(out);
      }
    }
    return;
  }
  int lanes[kVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const int64_t left = t.columns - v * V::kSize;
    lanes[v] = left <= 0 ? 0 : left >= V::kSize ? V::kSize : static_cast<int>(left);
  }
  const V alpha = t.alpha;
  const V beta = t.beta;
  const bool add = t.beta != T(0);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r, c += c_row) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      T* out = c + v * V::kSize;
      V value = alpha * sum[r][v];
      if (add) value = fma(beta, V::load_partial(out, lanes[v]), value);
      value.store_partial(out, lanes[v]);
    }
  }
}

template <class T, int kVectors, Reading kReading, int... kRow>
void tile_of_rows(const MatmulTile<T>& t, int rows, Lanes<kRow...>) {
  static constexpr void (*kTiles[])(const MatmulTile<T>&) = {
      tile<T, kRow + 1, kVectors, kReading>...};
  kTiles[rows - 1](t);
}

template <class T, int kVectors>
void tile_of_width(const MatmulTile<T>& t, int rows) {
  using Rows = typename MakeLanes<max_rows(kVectors)>::type;
  if constexpr (kVectors == kCopyingVectors) {
    if (t.b_copy != nullptr) return tile_of_rows<T, kVectors, Reading::copy>(t, rows, Rows{});
  }
  if (t.k >= kLongSum) return tile_of_rows<T, kVectors, Reading::ahead>(t, rows, Rows{});
  tile_of_rows<T, kVectors, Reading::plain>(t, rows, Rows{});
}

template <class T>
void any_tile(const MatmulTile<T>& t, int rows, int vectors) {
  switch (vectors) {
    case 1:
      return tile_of_width<T, 1>(t, rows);
    case 2:
      return tile_of_width<T, 2>(t, rows);
    default:
      return tile_of_width<T, 4>(t, rows);
  }
}

template <class T>
constexpr MatmulKernels<T> kTable = {
    Vec<T>::kSize,   {0, max_rows(1), max_rows(2), max_rows(3), max_rows(4)},
    kCopyingVectors, any_tile<T>,
    pack<T>,
};

}  // namespace

template <>
const MatmulKernels<float>& table() {
  return kTable<float>;
}
template <>
const MatmulKernels<double>& table() {
  return kTable<double>;
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
