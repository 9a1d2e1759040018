// SPDX-License-Identifier: MIT
// Loops over arrays in whole vectors and a last part of one, with one body for both; sums in
// blocks.
//
// A float sum over n terms is off by up to n roundings. Here lanes add at most kBlockVectors terms
// in T, and the sums of the blocks are added in double: the error stops growing with n. The order
// depends on n alone.
#pragma once

#include "vec.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {

// How a body reads and writes: all lanes of a vector, or the first n of them. What one loop puts
// and the next one over the same row gets lies in memory, but the part of a vector at the end of a
// row in `tail`, a register: a load from a masked store has to wait for the cache, and it seems to
// touch the next row's stores too.
template <class V>
struct Whole {
  using T = typename V::value_type;
  static constexpr int n = V::kSize;
  TILEGRAD_INLINE V load(const T* p, T = T(0)) const { return V::load(p); }
  TILEGRAD_INLINE void store(T* p, V v) const { v.store(p); }
  TILEGRAD_INLINE V keep(V v) const { return v; }
  TILEGRAD_INLINE void put(T* p, V v, V&) const { v.store(p); }
  TILEGRAD_INLINE V get(const T* p, V) const { return V::load(p); }
};

template <class V>
struct Part {
  using T = typename V::value_type;
  int n;
  TILEGRAD_INLINE V load(const T* p, T fill = T(0)) const { return V::load_partial(p, n, fill); }
  TILEGRAD_INLINE void store(T* p, V v) const { v.store_partial(p, n); }
  TILEGRAD_INLINE V keep(V v) const { return select(Mask<V>::first(n), v, V(T(0))); }
  TILEGRAD_INLINE void put(T*, V v, V& tail) const { tail = v; }
  TILEGRAD_INLINE V get(const T*, V tail) const { return tail; }
};

// f(i, u, access) for the vectors of [begin, end); u < kUnroll picks one of independent
// accumulators.
template <class V, int kUnroll = 1, class F>
TILEGRAD_INLINE void for_vectors(int64_t begin, int64_t end, F f) {
  int64_t i = begin;
  for (; i + kUnroll * V::kSize <= end; i += kUnroll * V::kSize) {
#pragma GCC unroll 8
    for (int u = 0; u < kUnroll; ++u) f(i + u * V::kSize, u, Whole<V>{});
  }
  if constexpr (kUnroll > 1) {
    for (; i + V::kSize <= end; i += V::kSize) f(i, 0, Whole<V>{});
  }
  if (i < end) f(i, 0, Part<V>{static_cast<int>(end - i)});
}

constexpr int kAccumulators = 4;

// NaN where an element is NaN, -inf where n is 0.
template <class T>
TILEGRAD_INLINE T row_max(const T* x, int64_t n) {
  using V = Vec<T>;
  constexpr T kLowest = -__builtin_inff();
  V highest[kAccumulators] = {kLowest, kLowest, kLowest, kLowest};
  for_vectors<V, kAccumulators>(0, n, [&](int64_t i, int u, auto access) {
    highest[u] = max(highest[u], access.load(x + i, kLowest));
  });
  return reduce_max(max(max(highest[0], highest[1]), max(highest[2], highest[3])));
}

constexpr int kBlockVectors = 64;  // terms a lane adds before its sum moves to double

// totals[k] = sum of the k-th term over [0, n); f(i, access, terms) supplies a vector of each, with
// zero in the lanes past n.
template <class V, int kTerms, class F>
TILEGRAD_INLINE void blocked_sums(double (&totals)[kTerms], int64_t n, F f) {
  constexpr int64_t kBlock = int64_t{kAccumulators} * kBlockVectors * V::kSize;
  for (double& total : totals) total = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    V sums[kAccumulators][kTerms];
#pragma GCC unroll 8
    for (int u = 0; u < kAccumulators; ++u) {
#pragma GCC unroll 8
      for (int k = 0; k < kTerms; ++k) sums[u][k] = V(0);
    }
    for_vectors<V, kAccumulators>(begin, n - begin < kBlock ? n : begin + kBlock,
                                  [&](int64_t i, int u, auto access) {
                                    V terms[kTerms];
                                    f(i, access, terms);
#pragma GCC unroll 8
                                    for (int k = 0; k < kTerms; ++k) sums[u][k] += terms[k];
                                  });
#pragma GCC unroll 8
    for (int k = 0; k < kTerms; ++k) {
      totals[k] += reduce_add((sums[0][k] + sums[1][k]) + (sums[2][k] + sums[3][k]));
    }
  }
}

template <class V, class F>
TILEGRAD_INLINE double blocked_sum(int64_t n, F f) {
  double totals[1];
  blocked_sums<V>(totals, n,
                  [&](int64_t i, auto access, V(&terms)[1]) { terms[0] = f(i, access); });
  return totals[0];
}

// kVectors neighbouring columns of vectors, walked together down a strided axis.
template <int kVectors>
struct Columns {
  static constexpr int count = kVectors;
};

// f(i, Columns, access) over n columns.
template <class V, class F>
TILEGRAD_INLINE void for_columns(int64_t n, F f) {
  constexpr int kWide = 4;
  int64_t i = 0;
  for (; i + kWide * V::kSize <= n; i += kWide * V::kSize) f(i, Columns<kWide>{}, Whole<V>{});
  for (; i + V::kSize <= n; i += V::kSize) f(i, Columns<1>{}, Whole<V>{});
  if (i < n) f(i, Columns<1>{}, Part<V>{static_cast<int>(n - i)});
}

// The same sums down `rows` rows, one per column: f(row, u, terms) for vector u of the columns.
// totals[k][column].
template <class V, int kTerms, int kVectors, class F>
TILEGRAD_INLINE void blocked_column_sums(double (&totals)[kTerms][kVectors * V::kSize],
                                         int64_t rows, F f) {
  using T = typename V::value_type;
  for (auto& column : totals) {
    for (double& total : column) total = 0;
  }
  for (int64_t begin = 0; begin < rows; begin += kBlockVectors) {
    const int64_t end = rows - begin < kBlockVectors ? rows : begin + kBlockVectors;
    V sums[kVectors][kTerms];
#pragma GCC unroll 8
    for (int u = 0; u < kVectors; ++u) {
#pragma GCC unroll 8
      for (int k = 0; k < kTerms; ++k) sums[u][k] = V(0);
    }
    for (int64_t row = begin; row < end; ++row) {
#pragma GCC unroll 8
      for (int u = 0; u < kVectors; ++u) {
        V terms[kTerms];
        f(row, u, terms);
#pragma GCC unroll 8
        for (int k = 0; k < kTerms; ++k) sums[u][k] += terms[k];
      }
    }
    for (int k = 0; k < kTerms; ++k) {
      T lanes[kVectors * V::kSize];
#pragma GCC unroll 8
      for (int u = 0; u < kVectors; ++u) sums[u][k].store(lanes + u * V::kSize);
      for (int lane = 0; lane < kVectors * V::kSize; ++lane) totals[k][lane] += lanes[lane];
    }
  }
}

// Sums of columns as vectors of T.
template <class V, int kVectors, int kLanes>
TILEGRAD_INLINE void round_to(V (&sums)[kVectors], const double (&totals)[kLanes]) {
  static_assert(kLanes == kVectors * V::kSize);
  typename V::value_type lanes[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    lanes[lane] = static_cast<typename V::value_type>(totals[lane]);
  }
#pragma GCC unroll 8
  for (int u = 0; u < kVectors; ++u) sums[u] = V::load(lanes + u * V::kSize);
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
