// SPDX-License-Identifier: MIT
// One contiguous row of a softmax: its maximum, its next row's way into the cache, its result.
#pragma once

#include "softmax.hpp"
#include "vec.hpp"
#include "vectors.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {

template <class T>
constexpr T kLowest = -__builtin_inff();

// Where an element is NaN any value: then the row's exponentials have a NaN and so their sum.
template <class T>
TILEGRAD_INLINE T row_top(const T* x, int64_t n) {
  using V = Vec<T>;
  V highest[kAccumulators] = {kLowest<T>, kLowest<T>, kLowest<T>, kLowest<T>};
  for_vectors<V, kAccumulators>(0, n, [&](int64_t i, int u, auto access) {
    highest[u] = max_or_second(highest[u], access.load(x + i, kLowest<T>));
  });
  return reduce_max(max(max(highest[0], highest[1]), max(highest[2], highest[3])));
}

// While the exponentials keep the processor busy, the memory brings the next row of x, and this row
// of y unless it is streamed.
template <class T>
class RowAhead {
 public:
  TILEGRAD_INLINE RowAhead(const T* x, const T* y, const ClassRows& shape)
      : x_(x + (shape.classes <= kLongest ? shape.row_stride : 0)), y_(shape.stream ? x : y) {}
  TILEGRAD_INLINE void fetch(int64_t i) const {
    __builtin_prefetch(x_ + i, 0, 2);
    __builtin_prefetch(y_ + i, 1);
  }

 private:
  static constexpr int64_t kLongest = 65536;  // two rows of it fit L2
  const T* x_;
  const T* y_;
};

// The place near the start of scratch memory that lies in its cache line as p does in its own.
template <class T>
TILEGRAD_INLINE T* beside(T* scratch, const T* p) {
  const auto bytes = reinterpret_cast<uintptr_t>(p) - reinterpret_cast<uintptr_t>(scratch);
  return scratch + (bytes & 63) / sizeof(T);
}

// y[i] = f(i, access) for i < n.
template <class T, class F>
TILEGRAD_INLINE void write_row(T* y, int64_t n, bool stream, F f) {
  using V = Vec<T>;
  if (!stream) {
    return for_vectors<V>(0, n,
                          [&](int64_t i, int, auto access) { access.store(y + i, f(i, access)); });
  }
  constexpr int64_t kBytes = native::kVectorBytes;
  const int64_t ahead = -static_cast<int64_t>(reinterpret_cast<uintptr_t>(y)) & (kBytes - 1);
  int64_t i = ahead / static_cast<int64_t>(sizeof(T));
  if (i > n) i = n;
  if (i > 0) {
    const Part<V> access{static_cast<int>(i)};
    access.store(y, f(0, access));
  }
  for (; i + V::kSize <= n; i += V::kSize) f(i, Whole<V>{}).stream(y + i);
  if (i < n) {
    const Part<V> access{static_cast<int>(n - i)};
    access.store(y + i, f(i, access));
  }
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
