// SPDX-License-Identifier: MIT
// Math: with target mass b_c (one-hot part h at class t, soft part s_c), z = logits - max,
//   S = sum exp(z), A = sum b_c:  loss = A log S - sum_c b_c z_c,
//   dlogits_c = g (A exp(z_c) / S - b_c). For b >= 0 both terms of the loss are >= 0.
// Shapes: up to 64 rows of `classes` logits, contiguous or as columns of a matrix (ClassRows).
// Parallelism: along a contiguous row the lanes share it; over columns every lane has one.
// Memory: a row comes from memory once; its exponentials wait in dlogits, in cache, for S.
// Source: Milakov and Gimelshein, arXiv 1805.02867, for the fusion; three passes, not online, since
//   a second exponential costs more than a read from cache.
#include "cross_entropy.hpp"

#include "../isa.hpp"
#include "math.hpp"
#include "softmax_exp.hpp"
#include "vectors.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

template <class T>
constexpr T kLowest = -__builtin_inff();

// The loss of a row is mass * log(sum) + rest: the logarithms are taken for all rows together.
template <class T>
struct LossTerms {
  T sum[kMaxCrossEntropyRows], mass[kMaxCrossEntropyRows], rest[kMaxCrossEntropyRows];

  void set(int64_t row, double s, double m, double r) {
    sum[row] = static_cast<T>(s);
    mass[row] = static_cast<T>(m);
    rest[row] = static_cast<T>(r);
  }
};

// s_c in all lanes of the access, for the classes at weight[i ..] or the one class `weight`.
template <class T, class Access>
TILEGRAD_INLINE Vec<T> soft_mass(const CrossEntropyRows<T>& c, const T* probabilities,
                                 Vec<T> weight, Access access) {
  Vec<T> mass = c.floor;
  if (probabilities != nullptr) {
    mass = fma(Vec<T>(c.keep), access.load(probabilities), mass);
  }
  return mass * weight;
}

template <class T, class Access>
TILEGRAD_INLINE Vec<T> soft_mass_in_row(const CrossEntropyRows<T>& c, const T* probabilities,
                                        int64_t i, Access access) {
  return soft_mass(c, probabilities == nullptr ? nullptr : probabilities + i,
                   c.weight == nullptr ? Vec<T>(T(1)) : access.load(c.weight + i), access);
}

template <class T, bool kSoft, bool kGradient>
TILEGRAD_INLINE void one_row(const CrossEntropyRows<T>& c, LossTerms<T>& terms, int64_t row) {
  using V = Vec<T>;
  const int64_t n = c.shape.classes;
  const int64_t offset = row * c.shape.row_stride;
  const T* x = c.logits + offset;
  T* dx = kGradient ? c.dlogits + offset : nullptr;
  const T* q = kSoft && c.probabilities != nullptr ? c.probabilities + offset : nullptr;
  const int64_t target = c.target == nullptr ? 0 : c.target[row];
  if (target == kIgnoredRow) {
    terms.set(row, 1, 0, 0);
    if constexpr (kGradient) {
      for_vectors<V>(0, n, [&](int64_t i, int, auto access) { access.store(dx + i, V(T(0))); });
    }
    return;
  }
  const T highest = row_max(x, n);
  // Read before dlogits, which may be logits, is written.
  double rest = c.target == nullptr ? 0 : -static_cast<double>(c.hit[row] * (x[target] - highest));
  double mass = c.hit[row];
  double sum;
  V tail = T(0);
  if constexpr (kSoft) {
    double sums[3];
    blocked_sums<V>(sums, n, [&](int64_t i, auto access, V(&term)[3]) {
      const V z = access.load(x + i, kLowest<T>) - highest;
      term[0] = softmax_exp(z);
      term[1] = access.keep(soft_mass_in_row(c, q, i, access));
      term[2] = access.keep(term[1] * z);
      if constexpr (kGradient) access.put(dx + i, term[0], tail);
    });
    sum = sums[0];
    mass += sums[1];
    rest -= sums[2];
  } else {
    sum = blocked_sum<V>(n, [&](int64_t i, auto access) {
      const V e = softmax_exp(access.load(x + i, kLowest<T>) - highest);
      if constexpr (kGradient) access.put(dx + i, e, tail);
      return e;
    });
  }
  terms.set(row, sum, mass, rest);
  if constexpr (kGradient) {
    const V factor = static_cast<T>(c.scale[row] * mass / sum);
    const V scale = c.scale[row];
    for_vectors<V>(0, n, [&](int64_t i, int, auto access) {
      V gradient = access.get(dx + i, tail) * factor;
      if constexpr (kSoft) gradient -= soft_mass_in_row(c, q, i, access) * scale;
      access.store(dx + i, gradient);
    });
    if (c.target != nullptr) dx[target] -= c.scale[row] * c.hit[row];
  }
}

template <class T, bool kSoft, bool kGradient, class C, class Access>
TILEGRAD_INLINE void some_columns(const CrossEntropyRows<T>& c, LossTerms<T>& terms, int64_t first,
                                  C, Access access) {
  using V = Vec<T>;
  constexpr int kVectors = C::count;
  constexpr int kLanes = kVectors * V::kSize;
  const int lanes = kLanes - V::kSize + access.n;
  const int64_t n = c.shape.classes, stride = c.shape.class_stride;
  const T* x = c.logits + first;
  T* dx = kGradient ? c.dlogits + first : nullptr;
  const T* q = kSoft && c.probabilities != nullptr ? c.probabilities + first : nullptr;
  const int64_t* target = c.target == nullptr ? nullptr : c.target + first;

  V highest[kVectors];
#pragma GCC unroll 8
  for (int u = 0; u < kVectors; ++u) highest[u] = V(kLowest<T>);
  for (int64_t k = 0; k < n; ++k) {
#pragma GCC unroll 8
    for (int u = 0; u < kVectors; ++u) {
      highest[u] = max(highest[u], access.load(x + k * stride + u * V::kSize));
    }
  }
  T top[kLanes], factor[kLanes] = {}, counts[kLanes] = {};
  double rest[kLanes] = {};
#pragma GCC unroll 8
  for (int u = 0; u < kVectors; ++u) highest[u].store(top + u * V::kSize);
  for (int lane = 0; lane < lanes; ++lane) {
    counts[lane] = target == nullptr || target[lane] != kIgnoredRow;
    if (target == nullptr || target[lane] == kIgnoredRow) continue;
    rest[lane] =
        -static_cast<double>(c.hit[first + lane] * (x[target[lane] * stride + lane] - top[lane]));
  }

  constexpr int kTerms = kSoft ? 3 : 1;
  double sums[kTerms][kLanes];
  blocked_column_sums<V, kTerms, kVectors>(sums, n, [&](int64_t k, int u, V(&term)[kTerms]) {
    const int64_t at = k * stride + u * V::kSize;
    const V z = access.load(x + at) - highest[u];
    term[0] = softmax_exp(z);
    if constexpr (kSoft) {
      term[1] = soft_mass(c, q == nullptr ? nullptr : q + at,
                          c.weight == nullptr ? V(T(1)) : V(c.weight[k]), access);
      term[2] = term[1] * z;
    }
    if constexpr (kGradient) access.store(dx + at, term[0]);
  });
  for (int lane = 0; lane < lanes; ++lane) {
    if (counts[lane] == 0) {
      terms.set(first + lane, 1, 0, 0);
      continue;
    }
    double mass = c.hit[first + lane];
    if constexpr (kSoft) {
      mass += sums[1][lane];
      rest[lane] -= sums[2][lane];
    }
    terms.set(first + lane, sums[0][lane], mass, rest[lane]);
    factor[lane] = static_cast<T>(c.scale[first + lane] * mass / sums[0][lane]);
  }
  if constexpr (kGradient) {
    for (int64_t k = 0; k < n; ++k) {
#pragma GCC unroll 8
      for (int u = 0; u < kVectors; ++u) {
        const int64_t at = k * stride + u * V::kSize;
        V gradient = access.load(dx + at) * V::load(factor + u * V::kSize);
        if constexpr (kSoft) {
          gradient -= soft_mass(c, q == nullptr ? nullptr : q + at,
                                c.weight == nullptr ? V(T(1)) : V(c.weight[k]), access) *
                      access.load(c.scale + first + u * V::kSize);
        }
        // An ignored row's gradient is 0 even where its exponentials are NaN.
        const Mask<V> counted = V::load(counts + u * V::kSize) != V(T(0));
        access.store(dx + at, select(counted, gradient, V(T(0))));
      }
    }
    for (int lane = 0; target != nullptr && lane < lanes; ++lane) {
      if (counts[lane] == 0) continue;
      dx[target[lane] * stride + lane] -= c.scale[first + lane] * c.hit[first + lane];
    }
  }
}

template <class T, bool kSoft, bool kGradient>
[[gnu::flatten, gnu::noinline]] void all_rows(const CrossEntropyRows<T>& c, LossTerms<T>& terms) {
  if (c.shape.class_stride == 1) {
    for (int64_t row = 0; row < c.shape.rows; ++row) {
      one_row<T, kSoft, kGradient>(c, terms, row);
    }
  } else {
    for_columns<Vec<T>>(c.shape.rows, [&](int64_t i, auto columns, auto access) {
      some_columns<T, kSoft, kGradient>(c, terms, i, columns, access);
    });
  }
}

template <class T>
void rows(const CrossEntropyRows<T>& c) {
  using V = Vec<T>;
  LossTerms<T> terms;
  if (c.soft) {
    c.dlogits != nullptr ? all_rows<T, true, true>(c, terms) : all_rows<T, true, false>(c, terms);
  } else {
    c.dlogits != nullptr ? all_rows<T, false, true>(c, terms) : all_rows<T, false, false>(c, terms);
  }
  if (c.loss == nullptr) return;
  for_vectors<V>(0, c.shape.rows, [&](int64_t i, int, auto access) {
    const V log_sum = log(access.load(terms.sum + i, T(1)));
    access.store(c.loss + i,
                 fma(access.load(terms.mass + i), log_sum, access.load(terms.rest + i)));
  });
}

template <class T>
constexpr CrossEntropyKernels<T> kTable = {rows<T>};

}  // namespace

template <>
const CrossEntropyKernels<float>& table() {
  return kTable<float>;
}
template <>
const CrossEntropyKernels<double>& table() {
  return kTable<double>;
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
