// SPDX-License-Identifier: MIT
// Math: none: a group of rows is copied so that each lane has a row, and back.
// Shapes: (classes, kGroup) with lane l of class c at lanes[c * kPitch + l]; rows of any ClassRows.
// Parallelism: contiguous rows are transposed in registers, columns are copied by the vector.
// Memory: one read and one write an element; a group stays in L1 or L2 until it is copied back.
#pragma once

#include "matmul_pack.hpp"
#include "softmax.hpp"
#include "vec.hpp"
#include "vectors.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {

constexpr int kGroupVectors = 4;
template <class T>
constexpr int kGroup = kGroupVectors * Vec<T>::kSize;
// A vector more: the last copy of a class may write a whole vector.
template <class T>
constexpr int kPitch = kGroup<T> + Vec<T>::kSize;
static_assert((kGroupVectors + 1) * native::kVectorBytes <= kLaneBytes);

template <class T>
TILEGRAD_INLINE int group_size(int64_t rows) {
  return rows < kGroup<T> ? static_cast<int>(rows) : kGroup<T>;
}

// f(offset, lane, count) for stretches of `count` neighbouring columns among rows [row, row +
// rows).
template <class F>
TILEGRAD_INLINE void for_stretches(const ClassRows& shape, int64_t row, int rows, F f) {
  for (int lane = 0; lane < rows;) {
    const int64_t at = shape.first + row + lane;
    const int64_t matrix = at / shape.line, column = at - matrix * shape.line;
    const int64_t left = shape.line - column;
    const int count = left < rows - lane ? static_cast<int>(left) : rows - lane;
    f(matrix * shape.classes * shape.class_stride + column, lane, count);
    lane += count;
  }
}

// Rows [row, row + rows) of x, rows <= kGroup. Lanes up to the next whole vector become 0.
template <class T>
TILEGRAD_INLINE void gather_rows(T* lanes, const T* x, const ClassRows& shape, int64_t row,
                                 int rows) {
  using V = Vec<T>;
  const int64_t n = shape.classes;
  if (shape.class_stride == 1 && rows == 1) {
    const T* from = x + row * shape.row_stride;
    for (int64_t c = 0; c < n; ++c) V::load_partial(from + c, 1).store(lanes + c * kPitch<T>);
    return;
  }
  if (shape.class_stride == 1) {
    const T* from = x + row * shape.row_stride;
    for (int lane = 0; lane < rows; lane += V::kSize, from += V::kSize * shape.row_stride) {
      for (int64_t c = 0; c < n; c += V::kSize) {
        const int count = n - c < V::kSize ? static_cast<int>(n - c) : V::kSize;
        V block[V::kSize];  // (rows, classes)
#pragma GCC unroll 16
        for (int i = 0; i < V::kSize; ++i) {
          const int64_t present = lane + i < rows;
          block[i] =
              V::load_partial(from + present * i * shape.row_stride + c, present != 0 ? count : 0);
        }
        transpose_round<1>(block);
#pragma GCC unroll 16
        for (int i = 0; i < V::kSize; ++i) {
          if (i < count) block[i].store(lanes + (c + i) * kPitch<T> + lane);
        }
      }
    }
    return;
  }
  for_stretches(shape, row, rows, [&](int64_t offset, int lane, int count) {
    const T* from = x + offset;
    T* to = lanes + lane;
    constexpr int64_t kAhead = 8;
    for (int64_t c = 0; c < n; ++c, from += shape.class_stride, to += kPitch<T>) {
      // The hardware does not look ahead across the pages that lie between two classes.
      __builtin_prefetch(from + kAhead * shape.class_stride);
      __builtin_prefetch(from + kAhead * shape.class_stride + count - 1);
      for_vectors<V>(0, count,
                     [&](int64_t i, int, auto access) { access.load(from + i).store(to + i); });
    }
  });
}

template <class T>
TILEGRAD_INLINE void scatter_rows(T* y, const T* lanes, const ClassRows& shape, int64_t row,
                                  int rows) {
  using V = Vec<T>;
  const int64_t n = shape.classes;
  if (shape.class_stride == 1 && rows == 1) {
    T* to = y + row * shape.row_stride;
    for (int64_t c = 0; c < n; ++c) to[c] = lanes[c * kPitch<T>];
    return;
  }
  if (shape.class_stride == 1) {
    T* to = y + row * shape.row_stride;
    for (int lane = 0; lane < rows; lane += V::kSize, to += V::kSize * shape.row_stride) {
      for (int64_t c = 0; c < n; c += V::kSize) {
        const int count = n - c < V::kSize ? static_cast<int>(n - c) : V::kSize;
        V block[V::kSize];  // (classes, rows)
#pragma GCC unroll 16
        for (int i = 0; i < V::kSize; ++i) {
          block[i] = V::load(lanes + (c + (i < count ? i : 0)) * kPitch<T> + lane);
        }
        transpose_round<1>(block);
#pragma GCC unroll 16
        for (int i = 0; i < V::kSize; ++i) {
          if (lane + i < rows) block[i].store_partial(to + i * shape.row_stride + c, count);
        }
      }
    }
    return;
  }
  for_stretches(shape, row, rows, [&](int64_t offset, int lane, int count) {
    T* to = y + offset;
    const T* from = lanes + lane;
    for (int64_t c = 0; c < n; ++c, from += kPitch<T>, to += shape.class_stride) {
      for_vectors<V>(0, count,
                     [&](int64_t i, int, auto access) { access.store(to + i, V::load(from + i)); });
    }
  });
}

// f(lane, Columns) for the whole vectors that hold `rows` lanes.
template <class T, class F>
TILEGRAD_INLINE void for_lanes(int rows, F f) {
  using V = Vec<T>;
  if (rows > kGroup<T> - V::kSize) return f(0, Columns<kGroupVectors>{});
  for (int lane = 0; lane < rows; lane += V::kSize) f(lane, Columns<1>{});
}

// A gathered group: vector u of class c.
template <class T>
struct Group {
  using V = Vec<T>;
  static constexpr Whole<V> access = {};
  T* p;
  TILEGRAD_INLINE T* at(int64_t c, int u = 0) const { return p + c * kPitch<T> + u * V::kSize; }
  TILEGRAD_INLINE V load(int64_t c, int u) const { return V::load(at(c, u)); }
  TILEGRAD_INLINE void store(int64_t c, int u, V v) const { v.store(at(c, u)); }
  TILEGRAD_INLINE void fetch(int64_t, int) const {}
};

// Neighbouring columns of a matrix, where they are.
template <class T, class Access>
struct MatrixColumns {
  T* p;
  int64_t pitch;
  Access access;
  TILEGRAD_INLINE T* at(int64_t c, int u = 0) const { return p + c * pitch + u * kSize; }
  TILEGRAD_INLINE auto load(int64_t c, int u) const { return access.load(at(c, u)); }
  template <class V>
  TILEGRAD_INLINE void store(int64_t c, int u, V v) const {
    access.store(at(c, u), v);
  }
  // The hardware does not look ahead across the pages that may lie between two classes.
  TILEGRAD_INLINE void fetch(int64_t c, int u) const { __builtin_prefetch(at(c, u)); }

 private:
  static constexpr int kSize = native::kVectorBytes / static_cast<int>(sizeof(T));
};

template <class T, class Access>
TILEGRAD_INLINE MatrixColumns<T, Access> columns_at(T* p, const ClassRows& shape, Access access) {
  return {p, shape.class_stride, access};
}

// Whether columns fill whole vectors where they are.
template <class T>
TILEGRAD_INLINE bool in_place(const ClassRows& shape) {
  return shape.class_stride != 1 && shape.line >= Vec<T>::kSize;
}

// Copies x to the group, unless it is the group. NaN lanes may come out as any value: their
// exponentials are NaN.
template <class T, int kVectors, class X>
TILEGRAD_INLINE void lane_max(Vec<T> (&highest)[kVectors], Group<T> group, X x, int64_t n) {
  constexpr int64_t kAhead = 8;
#pragma GCC unroll 8
  for (int u = 0; u < kVectors; ++u) highest[u] = Vec<T>(-__builtin_inff());
  for (int64_t c = 0; c < n; ++c) {
#pragma GCC unroll 8
    for (int u = 0; u < kVectors; ++u) {
      x.fetch(c + kAhead, u);
      const Vec<T> value = x.load(c, u);
      if (x.p != group.p) group.store(c, u, value);
      highest[u] = max_or_second(highest[u], value);
    }
  }
}

// sums[k][u] = sum over c of the k-th term of vector u, where f(c, u, terms) supplies terms. In T
// up to kBlockVectors classes, else the blocks' sums are added in double.
template <class T, int kTerms, int kVectors, class F>
TILEGRAD_INLINE void lane_sums(Vec<T> (&sums)[kTerms][kVectors], int64_t n, F f) {
  using V = Vec<T>;
  if (n <= kBlockVectors) {
#pragma GCC unroll 8
    for (int k = 0; k < kTerms; ++k) {
#pragma GCC unroll 8
      for (int u = 0; u < kVectors; ++u) sums[k][u] = V(T(0));
    }
    for (int64_t c = 0; c < n; ++c) {
#pragma GCC unroll 8
      for (int u = 0; u < kVectors; ++u) {
        V terms[kTerms];
        f(c, u, terms);
#pragma GCC unroll 8
        for (int k = 0; k < kTerms; ++k) sums[k][u] += terms[k];
      }
    }
    return;
  }
  double totals[kTerms][kVectors * V::kSize];
  blocked_column_sums<V, kTerms, kVectors>(totals, n, f);
#pragma GCC unroll 8
  for (int k = 0; k < kTerms; ++k) round_to(sums[k], totals[k]);
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
