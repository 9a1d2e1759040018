// SPDX-License-Identifier: MIT
// Math: y = exp(x - max) / sum exp(x - max), or x - max - log(sum): the maximum is subtracted so
//   that no exponential exceeds 1. Backward: dx = y (dy - sum dy y); with log, dx = dy - exp(y) sum
//   dy.
// Shapes: rows of `classes` elements, contiguous or as columns of a matrix (ClassRows).
// Parallelism: along a contiguous row the lanes share it; of short rows and of columns each lane
//   has one (class_lanes.hpp).
// Memory: a row is read once and written once; its exponentials wait in scratch memory.
#include "softmax.hpp"

#include "../isa.hpp"
#include "class_lanes.hpp"
#include "class_row.hpp"
#include "math.hpp"
#include "softmax_exp.hpp"
#include "vectors.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

template <class T>
TILEGRAD_INLINE void forward_row(T* y, const T* x, int64_t n, bool log_of, const ClassRows& shape,
                                 T* scratch) {
  using V = Vec<T>;
  const V highest = row_top(x, n);
  T* const e = beside(scratch, y);
  const RowAhead<T> ahead(x, y, shape);
  const double total = blocked_sum<V>(n, [&](int64_t i, auto access) {
    ahead.fetch(i);
    const V value = softmax_exp(access.load(x + i, kLowest<T>) - highest);
    if (!log_of) value.store(e + i);
    return value;
  });
  if (log_of) {
    const V log_total = log(V(static_cast<T>(total)));
    write_row(y, n, shape.stream,
              [&](int64_t i, auto access) { return access.load(x + i) - highest - log_total; });
  } else {
    const V factor = static_cast<T>(1 / total);
    write_row(y, n, shape.stream, [&](int64_t i, auto) { return V::load(e + i) * factor; });
  }
}

// A caller's own log-probabilities may be a little above 0.
template <class V>
TILEGRAD_INLINE V exp_of_log(V y) {
  using T = typename V::value_type;
  return softmax_exp(clamp(y, V(T(-1e30)), V(ExpRange<T>::kTop)));
}

template <class T>
TILEGRAD_INLINE void backward_row(T* dx, const T* dy, const T* y, int64_t n, bool log_of,
                                  const ClassRows& shape) {
  using V = Vec<T>;
  const double total = blocked_sum<V>(n, [&](int64_t i, auto access) {
    const V g = access.load(dy + i);
    return log_of ? g : g * access.load(y + i);
  });
  const V sum = static_cast<T>(total);
  write_row(dx, n, shape.stream, [&](int64_t i, auto access) {
    const V g = access.load(dy + i);
    const V value = access.load(y + i);
    return log_of ? g - exp_of_log(value) * sum : value * (g - sum);
  });
}

// x and y may both be the group.
template <class T, class Y, class X, class C>
TILEGRAD_INLINE void forward_lanes(Y y, X x, Group<T> group, int64_t n, bool log_of, C) {
  using V = Vec<T>;
  constexpr int kVectors = C::count;
  V highest[kVectors], sums[1][kVectors];
  lane_max(highest, group, x, n);
  lane_sums(sums, n, [&](int64_t c, int u, V(&terms)[1]) {
    y.fetch(c, u);
    terms[0] = softmax_exp(group.load(c, u) - highest[u]);
    if (!log_of) group.store(c, u, terms[0]);
  });
#pragma GCC unroll 8
  for (int u = 0; u < kVectors; ++u) sums[0][u] = log_of ? log(sums[0][u]) : V(T(1)) / sums[0][u];
  for (int64_t c = 0; c < n; ++c) {
#pragma GCC unroll 8
    for (int u = 0; u < kVectors; ++u) {
      const V value = group.load(c, u);
      y.store(c, u, log_of ? value - highest[u] - sums[0][u] : value * sums[0][u]);
    }
  }
}

template <class T, class C, class Access>
TILEGRAD_INLINE void backward_columns(T* dx, const T* dy, const T* y, int64_t n, int64_t stride,
                                      bool log_of, C, Access access) {
  using V = Vec<T>;
  constexpr int kVectors = C::count;
  V sums[1][kVectors];
  lane_sums(sums, n, [&](int64_t c, int u, V(&terms)[1]) {
    const int64_t at = c * stride + u * V::kSize;
    terms[0] = access.load(dy + at);
    if (!log_of) terms[0] *= access.load(y + at);
  });
  for (int64_t c = 0; c < n; ++c) {
#pragma GCC unroll 8
    for (int u = 0; u < kVectors; ++u) {
      const int64_t at = c * stride + u * V::kSize;
      const V g = access.load(dy + at);
      const V value = access.load(y + at);
      access.store(dx + at, log_of ? g - exp_of_log(value) * sums[0][u] : value * (g - sums[0][u]));
    }
  }
}

template <class T, bool kLog>
[[gnu::flatten]] void forward_all(T* y, const T* x, const ClassRows& shape, T* scratch) {
  const int64_t n = shape.classes;
  if (shape.class_stride == 1 && n > kGroupedClasses) {
    for (int64_t row = 0; row < shape.rows; ++row) {
      const int64_t at = row * shape.row_stride;
      forward_row(y + at, x + at, n, kLog, shape, scratch);
    }
    return;
  }
  for (int64_t row = 0; row < shape.rows; row += kGroup<T>) {
    const int rows = group_size<T>(shape.rows - row);
    if (in_place<T>(shape)) {
      for_stretches(shape, row, rows, [&](int64_t offset, int, int count) {
        for_columns<Vec<T>>(count, [&](int64_t i, auto columns, auto access) {
          forward_lanes(columns_at(y + offset + i, shape, access),
                        columns_at(x + offset + i, shape, access), Group<T>{scratch}, n, kLog,
                        columns);
        });
      });
      continue;
    }
    gather_rows(scratch, x, shape, row, rows);
    for_lanes<T>(rows, [&](int lane, auto columns) {
      const Group<T> group{scratch + lane};
      forward_lanes(group, group, group, n, kLog, columns);
    });
    scatter_rows(y, scratch, shape, row, rows);
  }
}

template <class T, bool kLog>
[[gnu::flatten]] void backward_all(T* dx, const T* dy, const T* y, const ClassRows& shape) {
  if (shape.class_stride == 1) {
    for (int64_t row = 0; row < shape.rows; ++row) {
      const int64_t at = row * shape.row_stride;
      backward_row(dx + at, dy + at, y + at, shape.classes, kLog, shape);
    }
    return;
  }
  for (int64_t row = 0; row < shape.rows; row += kGroup<T>) {
    for_stretches(shape, row, group_size<T>(shape.rows - row), [&](int64_t at, int, int count) {
      for_columns<Vec<T>>(count, [&](int64_t i, auto columns, auto access) {
        backward_columns(dx + at + i, dy + at + i, y + at + i, shape.classes, shape.class_stride,
                         kLog, columns, access);
      });
    });
  }
}

template <class T>
void forward(T* y, const T* x, const ClassRows& shape, bool log_of, void* scratch) {
  T* const own = static_cast<T*>(scratch);
  log_of ? forward_all<T, true>(y, x, shape, own) : forward_all<T, false>(y, x, shape, own);
  if (shape.stream) native::finish_streams();
}

template <class T>
void backward(T* dx, const T* dy, const T* y, const ClassRows& shape, bool log_of) {
  log_of ? backward_all<T, true>(dx, dy, y, shape) : backward_all<T, false>(dx, dy, y, shape);
  if (shape.stream) native::finish_streams();
}

template <class T>
constexpr SoftmaxKernels<T> kTable = {forward<T>, backward<T>};

}  // namespace

template <>
const SoftmaxKernels<float>& table() {
  return kTable<float>;
}
template <>
const SoftmaxKernels<double>& table() {
  return kTable<double>;
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
