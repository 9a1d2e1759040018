// SPDX-License-Identifier: MIT
// Math: packed[p,l] = source[l,p]: a panel in the order in which the register tile reads it.
// Shapes: (k, width); lanes beyond the matrix are filled with zeros.
// Parallelism: whole vectors where either direction is contiguous: a row copy, or a transpose in
//   registers of kSize vectors by log2(kSize) rounds of exchanging blocks (Eklundh 1972).
// Memory: one read and one write an element.
#pragma once

#include "vec.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {

template <int... kLane>
struct Lanes {};
template <int kCount, int... kLane>
struct MakeLanes : MakeLanes<kCount - 1, kCount - 1, kLane...> {};
template <int... kLane>
struct MakeLanes<0, kLane...> {
  using type = Lanes<kLane...>;
};

// Blocks of kBlock lanes: the even ones of a and b to a, the odd ones to b.
template <int kBlock, class V, int... kLane>
TILEGRAD_INLINE void exchange_blocks(V& a, V& b, Lanes<kLane...>) {
#if defined(__clang__) || __GNUC__ >= 12
  const auto even = __builtin_shufflevector(
      a.v, b.v, ((kLane & kBlock) != 0 ? kLane - kBlock + V::kSize : kLane)...);
  const auto odd = __builtin_shufflevector(
      a.v, b.v, ((kLane & kBlock) != 0 ? kLane + V::kSize : kLane + kBlock)...);
#else
  using Int = typename V::Int;
  const auto even = __builtin_shuffle(
      a.v, b.v, Int{((kLane & kBlock) != 0 ? kLane - kBlock + V::kSize : kLane)...});
  const auto odd = __builtin_shuffle(
      a.v, b.v, Int{((kLane & kBlock) != 0 ? kLane + V::kSize : kLane + kBlock)...});
#endif
  a.v = even;
  b.v = odd;
}

template <int kBlock, class V>
TILEGRAD_INLINE void transpose_round(V (&rows)[V::kSize]) {
  if constexpr (kBlock < V::kSize) {
#pragma GCC unroll 16
    for (int i = 0; i < V::kSize; ++i) {
      if ((i & kBlock) == 0) {
        exchange_blocks<kBlock>(rows[i], rows[i + kBlock], typename MakeLanes<V::kSize>::type{});
      }
    }
    transpose_round<2 * kBlock>(rows);
  }
}

template <class T>
void pack_copy(T* packed, int64_t width, const T* source, int64_t step, int64_t lanes, int64_t k) {
  using V = Vec<T>;
  constexpr int64_t kAhead = 16;
  if (lanes == width && width <= V::kSize) {
    // Whole vectors, whose last lanes the next step overwrites.
    const int count = static_cast<int>(lanes);
    const int64_t whole = k - (V::kSize + width - 1) / width;
    int64_t p = 0;
    for (; p < whole; ++p, packed += width, source += step) {
      __builtin_prefetch(source + kAhead * step);
      V::load_partial(source, count).store(packed);
    }
    for (; p < k; ++p, packed += width, source += step) {
      V::load_partial(source, count).store_partial(packed, count);
    }
    return;
  }
  for (int64_t p = 0; p < k; ++p, packed += width, source += step) {
    // The hardware does not look ahead across the pages that long rows put between two steps.
    if (p + kAhead < k) {
      __builtin_prefetch(source + kAhead * step);
      __builtin_prefetch(source + kAhead * step + lanes - 1);
    }
    int64_t l = 0;
    for (; l + V::kSize <= lanes; l += V::kSize) V::load(source + l).store(packed + l);
    if (l < lanes) {
      // Width leaves room for the zeros of a whole vector, except in panels of A.
      const V last = V::load_partial(source + l, static_cast<int>(lanes - l));
      if (l + V::kSize <= width) {
        last.store(packed + l);
        l += V::kSize;
      } else {
        last.store_partial(packed + l, static_cast<int>(width - l));
        l = width;
      }
    }
    for (; l + V::kSize <= width; l += V::kSize) V(T(0)).store(packed + l);
    if (l < width) V(T(0)).store_partial(packed + l, static_cast<int>(width - l));
  }
}

// kSize lanes at a time, kSize steps at a time.
template <class T>
void pack_transpose(T* packed, int64_t width, const T* source, int64_t lane_step, int64_t lanes,
                    int64_t k) {
  using V = Vec<T>;
  for (int64_t l = 0; l < width; l += V::kSize) {
    const int64_t left = lanes - l;
    const int64_t stored = width - l;
    for (int64_t p = 0; p < k; p += V::kSize) {
      const T* corner = source + l * lane_step + p;
      V rows[V::kSize];
      if (left >= V::kSize && p + V::kSize <= k) {
#pragma GCC unroll 16
        for (int i = 0; i < V::kSize; ++i) rows[i] = V::load(corner + i * lane_step);
      } else {
        const int steps = static_cast<int>(k - p < V::kSize ? k - p : V::kSize);
#pragma GCC unroll 16
        for (int i = 0; i < V::kSize; ++i) {
          rows[i] = i < left ? V::load_partial(corner + i * lane_step, steps) : V(T(0));
        }
      }
      transpose_round<1>(rows);
      T* out = packed + p * width + l;
      if (stored >= V::kSize && p + V::kSize <= k) {
#pragma GCC unroll 16
        for (int i = 0; i < V::kSize; ++i) rows[i].store(out + i * width);
      } else {
        const int count = static_cast<int>(stored < V::kSize ? stored : V::kSize);
#pragma GCC unroll 16
        for (int i = 0; i < V::kSize; ++i) {
          if (p + i < k) rows[i].store_partial(out + i * width, count);
        }
      }
    }
  }
}

template <class T>
void pack(T* packed, int64_t width, const T* source, int64_t lane_step, int64_t step, int64_t lanes,
          int64_t k) {
  if (lane_step == 1) return pack_copy(packed, width, source, step, lanes, k);
  if (step == 1) return pack_transpose(packed, width, source, lane_step, lanes, k);
  for (int64_t p = 0; p < k; ++p) {
    for (int64_t l = 0; l < lanes; ++l) packed[l] = source[l * lane_step + p * step];
    for (int64_t l = lanes; l < width; ++l) packed[l] = T(0);
    packed += width;
  }
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
