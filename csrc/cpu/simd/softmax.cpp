// SPDX-License-Identifier: MIT
// Math: y = exp(x - max) / sum exp(x - max), or x - max - log(sum): the maximum is subtracted so
//   that no exponential exceeds 1. Backward: dx = y (dy - sum dy y); with log, dx = dy - exp(y) sum
//   dy.
// Shapes: rows of `classes` elements, contiguous or as columns of a matrix (ClassRows).
// Parallelism: along a contiguous row the lanes share it; over columns every lane has one.
// Memory: forward reads a row three times and writes it twice, from cache unless it is huge.
#include "softmax.hpp"

#include "../isa.hpp"
#include "math.hpp"
#include "softmax_exp.hpp"
#include "vectors.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

template <class T>
constexpr T kLowest = -__builtin_inff();

template <class T>
TILEGRAD_INLINE void forward_row(T* y, const T* x, int64_t n, bool log_of) {
  using V = Vec<T>;
  const V highest = row_max(x, n);
  V tail = T(0);
  const double total = blocked_sum<V>(n, [&](int64_t i, auto access) {
    const V e = softmax_exp(access.load(x + i, kLowest<T>) - highest);
    if (!log_of) access.put(y + i, e, tail);
    return e;
  });
  if (log_of) {
    const V log_total = log(V(static_cast<T>(total)));
    for_vectors<V>(0, n, [&](int64_t i, int, auto access) {
      access.store(y + i, access.load(x + i) - highest - log_total);
    });
  } else {
    const V factor = static_cast<T>(1 / total);
    for_vectors<V>(0, n, [&](int64_t i, int, auto access) {
      access.store(y + i, access.get(y + i, tail) * factor);
    });
  }
}

// A caller's own log-probabilities may be a little above 0.
template <class V>
TILEGRAD_INLINE V exp_of_log(V y) {
  using T = typename V::value_type;
  return softmax_exp(clamp(y, V(T(-1e30)), V(ExpRange<T>::kTop)));
}

template <class T>
TILEGRAD_INLINE void backward_row(T* dx, const T* dy, const T* y, int64_t n, bool log_of) {
  using V = Vec<T>;
  const double total = blocked_sum<V>(n, [&](int64_t i, auto access) {
    const V g = access.load(dy + i);
    return log_of ? g : g * access.load(y + i);
  });
  const V sum = static_cast<T>(total);
  for_vectors<V>(0, n, [&](int64_t i, int, auto access) {
    const V g = access.load(dy + i);
    const V value = access.load(y + i);
    access.store(dx + i, log_of ? g - exp_of_log(value) * sum : value * (g - sum));
  });
}

// The lanes of a vector each have a row; `columns` of them stand side by side.
template <class T, class C, class Access>
TILEGRAD_INLINE void forward_columns(T* y, const T* x, int64_t n, int64_t stride, bool log_of, C,
                                     Access access) {
  using V = Vec<T>;
  constexpr int kVectors = C::count;
  V highest[kVectors];
#pragma GCC unroll 8
  for (int u = 0; u < kVectors; ++u) highest[u] = V(kLowest<T>);
  for (int64_t c = 0; c < n; ++c) {
#pragma GCC unroll 8
    for (int u = 0; u < kVectors; ++u) {
      highest[u] = max(highest[u], access.load(x + c * stride + u * V::kSize));
    }
  }
  double totals[1][kVectors * V::kSize];
  blocked_column_sums<V, 1, kVectors>(totals, n, [&](int64_t c, int u, V(&terms)[1]) {
    const int64_t at = c * stride + u * V::kSize;
    terms[0] = softmax_exp(access.load(x + at) - highest[u]);
    if (!log_of) access.store(y + at, terms[0]);
  });
  V sums[kVectors];
  round_to(sums, totals[0]);
#pragma GCC unroll 8
  for (int u = 0; u < kVectors; ++u) sums[u] = log_of ? log(sums[u]) : V(T(1)) / sums[u];
  for (int64_t c = 0; c < n; ++c) {
#pragma GCC unroll 8
    for (int u = 0; u < kVectors; ++u) {
      const int64_t at = c * stride + u * V::kSize;
      access.store(y + at, log_of ? access.load(x + at) - highest[u] - sums[u]
                                  : access.load(y + at) * sums[u]);
    }
  }
}

template <class T, class C, class Access>
TILEGRAD_INLINE void backward_columns(T* dx, const T* dy, const T* y, int64_t n, int64_t stride,
                                      bool log_of, C, Access access) {
  using V = Vec<T>;
  constexpr int kVectors = C::count;
  double totals[1][kVectors * V::kSize];
  blocked_column_sums<V, 1, kVectors>(totals, n, [&](int64_t c, int u, V(&terms)[1]) {
    const int64_t at = c * stride + u * V::kSize;
    terms[0] = access.load(dy + at);
    if (!log_of) terms[0] *= access.load(y + at);
  });
  V sums[kVectors];
  round_to(sums, totals[0]);
  for (int64_t c = 0; c < n; ++c) {
#pragma GCC unroll 8
    for (int u = 0; u < kVectors; ++u) {
      const int64_t at = c * stride + u * V::kSize;
      const V g = access.load(dy + at);
      const V value = access.load(y + at);
      access.store(dx + at, log_of ? g - exp_of_log(value) * sums[u] : value * (g - sums[u]));
    }
  }
}

template <class T, bool kLog>
[[gnu::flatten]] void forward_all(T* y, const T* x, ClassRows shape) {
  if (shape.class_stride == 1) {
    for (int64_t row = 0; row < shape.rows; ++row) {
      const int64_t at = row * shape.row_stride;
      forward_row(y + at, x + at, shape.classes, kLog);
    }
  } else {
    for_columns<Vec<T>>(shape.rows, [&](int64_t i, auto columns, auto access) {
      forward_columns(y + i, x + i, shape.classes, shape.class_stride, kLog, columns, access);
    });
  }
}

template <class T, bool kLog>
[[gnu::flatten]] void backward_all(T* dx, const T* dy, const T* y, ClassRows shape) {
  if (shape.class_stride == 1) {
    for (int64_t row = 0; row < shape.rows; ++row) {
      const int64_t at = row * shape.row_stride;
      backward_row(dx + at, dy + at, y + at, shape.classes, kLog);
    }
  } else {
    for_columns<Vec<T>>(shape.rows, [&](int64_t i, auto columns, auto access) {
      backward_columns(dx + i, dy + i, y + i, shape.classes, shape.class_stride, kLog, columns,
                       access);
    });
  }
}

template <class T>
void forward(T* y, const T* x, ClassRows shape, bool log_of) {
  log_of ? forward_all<T, true>(y, x, shape) : forward_all<T, false>(y, x, shape);
}

template <class T>
void backward(T* dx, const T* dy, const T* y, ClassRows shape, bool log_of) {
  log_of ? backward_all<T, true>(dx, dy, y, shape) : backward_all<T, false>(dx, dy, y, shape);
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
