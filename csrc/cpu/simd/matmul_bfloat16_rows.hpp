// SPDX-License-Identifier: MIT
// Math: sum[r,l] (+)= sum_p a[r,p] b[p,l] for so few rows that a copy of B would cost more than the
//   product; each element is the same chain of fma as in a register tile.
// Shapes: kRows rows, any number of columns.
// Parallelism: lanes run along the columns. Where b lies along k, vectors of pairs are transposed
// in
//   registers; kGroups chains of each row are in flight, since each fma waits for the one before.
// Memory: B is read once, 2 bytes an element.
#pragma once

#include "matmul_bfloat16.hpp"
#include "matmul_bfloat16_pack.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {

#if defined(TILEGRAD_ISA_AVX512)
constexpr int kFewRows = 8;
#else
constexpr int kFewRows = 4;
#endif

TILEGRAD_INLINE void put_sums(float* to, Vec<float> sum, bool add) {
  (add ? fma(Vec<float>(1.0f), Vec<float>::load(to), sum) : sum).store(to);
}

// Step p of every row; `a` is at that step of the first.
template <int kRows>
TILEGRAD_INLINE void add_products(Vec<float> (&sum)[kRows], const float* a, int64_t a_row,
                                  Vec<float> row_of_b) {
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) sum[r] = fma(Vec<float>(a[r * a_row]), row_of_b, sum[r]);
}

// Read where there is no column: constants in registers would make copies of the code below.
inline constexpr bfloat16 kZeros[2 * kLanes] = {};

template <int kRows>
void rows_along_k(const Bfloat16Rows& t) {
  using V = Vec<float>;
  constexpr int kGroups = 4;
  for (int64_t first = 0; first < t.columns; first += kGroups * kLanes) {
    const int64_t left = t.columns - first;
    const int groups =
        left >= kGroups * kLanes ? kGroups : static_cast<int>((left - 1) / kLanes) + 1;
    V sums[kGroups][kRows];
    for (auto& group : sums) {
      for (V& sum : group) sum = V(0.0f);
    }
    for (int64_t p = 0; p < t.k; p += 2 * kLanes) {
      for (int g = 0; g < groups; ++g) {
        const bfloat16* corner = t.b + (first + g * kLanes) * t.lane_stride + p;
        const int64_t lanes = left - g * kLanes;
        V words[kLanes], sum[kRows];
        if (lanes >= kLanes && t.k - p >= 2 * kLanes) {
#pragma GCC unroll 16
          for (int i = 0; i < kLanes; ++i) {
            words[i] = load_words(corner + i * t.lane_stride, 2 * kLanes);
          }
        } else {
#pragma GCC unroll 16
          for (int i = 0; i < kLanes; ++i) {
            words[i] = load_words(i < lanes ? corner + i * t.lane_stride : kZeros, t.k - p);
          }
        }
        transpose_round<1>(words);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) sum[r] = sums[g][r];
        if (t.k - p >= 2 * kLanes) {
#pragma GCC unroll 16
          for (int i = 0; i < kLanes; ++i) {
            const Words pair = (Words)words[i].to_bits();
            add_products<kRows>(sum, t.a + p + 2 * i, t.a_row, as_float(pair << 16));
            add_products<kRows>(sum, t.a + p + 2 * i + 1, t.a_row, as_float(pair & 0xffff0000u));
          }
        } else {
          Words pairs[kLanes];
          __builtin_memcpy(pairs, words, sizeof(pairs));
#pragma GCC unroll 1
          for (int64_t i = 0; i < t.k - p; ++i) {
            const Words pair = pairs[i / 2];
            add_products<kRows>(sum, t.a + p + i, t.a_row,
                                as_float(i % 2 == 0 ? pair << 16 : pair & 0xffff0000u));
          }
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) sums[g][r] = sum[r];
      }
    }
    for (int g = 0; g < groups; ++g) {
      for (int r = 0; r < kRows; ++r) {
        put_sums(t.sum + r * t.sum_row + first + g * kLanes, sums[g][r], t.add);
      }
    }
  }
}

template <int kRows, int kVectors>
TILEGRAD_INLINE void rows_across_k(const Bfloat16Rows& t, int64_t first, int64_t lanes) {
  using V = Vec<float>;
  V sums[kVectors][kRows];
#pragma GCC unroll 8
  for (auto& column : sums) {
#pragma GCC unroll 8
    for (V& sum : column) sum = V(0.0f);
  }
  const bfloat16* b = t.b + first;
  for (int64_t p = 0; p < t.k; ++p, b += t.step) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const Halves halves = lanes == kLanes ? load_halves(b + v * kLanes) : load_halves(b, lanes);
      add_products<kRows>(sums[v], t.a + p, t.a_row, widened(halves));
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      put_sums(t.sum + r * t.sum_row + first + v * kLanes, sums[v][r], t.add);
    }
  }
}

// As many chains of fma at a time as there are columns for, at most kVectors of each row.
template <int kRows, int kVectors>
void rows_across_k(const Bfloat16Rows& t, int64_t first) {
  for (; first + kVectors * kLanes <= t.columns; first += kVectors * kLanes) {
    rows_across_k<kRows, kVectors>(t, first, kLanes);
  }
  if constexpr (kVectors > 1) {
    rows_across_k<kRows, kVectors / 2>(t, first);
  } else if (first < t.columns) {
    rows_across_k<kRows, 1>(t, first, t.columns - first);
  }
}

template <int kRows>
void few_rows(const Bfloat16Rows& t) {
  if (t.lane_stride != 1) return rows_along_k<kRows>(t);
  rows_across_k<kRows, kRows == 1 ? 8 : kRows <= 3 ? 4 : 2>(t, 0);
}

template <int... kRow>
void few_rows_of(const Bfloat16Rows& t, int rows, Lanes<kRow...>) {
  static constexpr void (*kKernels[])(const Bfloat16Rows&) = {few_rows<kRow + 1>...};
  kKernels[rows - 1](t);
}

inline void few_rows(const Bfloat16Rows& t, int rows) {
  few_rows_of(t, rows, typename MakeLanes<kFewRows>::type{});
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
