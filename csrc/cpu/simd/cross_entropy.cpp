// SPDX-License-Identifier: MIT
// Math: with target mass b_c (one-hot part h at class t, soft part s_c), z = logits - max,
//   S = sum exp(z), A = sum b_c:  loss = A log S - sum_c b_c z_c,
//   dlogits_c = g (A exp(z_c) / S - b_c). For b >= 0 both terms of the loss are >= 0.
// Shapes: up to 64 rows of `classes` logits, contiguous or as columns of a matrix (ClassRows).
// Parallelism: along a contiguous row the lanes share it; of short rows and of columns each lane
//   has one (class_lanes.hpp).
// Memory: a row is read once and written once; its exponentials wait in scratch memory for S.
// Source: Milakov and Gimelshein, arXiv 1805.02867, for the fusion; three passes, not online, since
//   a second exponential costs more than a read from cache.
#include "cross_entropy.hpp"

#include "../isa.hpp"
#include "class_lanes.hpp"
#include "class_row.hpp"
#include "cross_entropy_terms.hpp"
#include "math.hpp"
#include "softmax_exp.hpp"
#include "vectors.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

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
  const T highest = row_top(x, n);
  T* const e = beside(static_cast<T*>(c.scratch), dx);
  const RowAhead<T> ahead(x, kGradient ? dx : x, c.shape);
  // Read before dlogits, which may be logits, is written.
  double rest = c.target == nullptr ? 0 : -static_cast<double>(c.hit[row] * (x[target] - highest));
  double mass = c.hit[row];
  double sum;
  if constexpr (kSoft) {
    double sums[3];
    blocked_sums<V>(sums, n, [&](int64_t i, auto access, V(&term)[3]) {
      ahead.fetch(i);
      const V z = access.load(x + i, kLowest<T>) - highest;
      term[0] = softmax_exp(z);
      term[1] = access.keep(soft_mass_in_row(c, q, i, access));
      term[2] = access.keep(term[1] * z);
      if constexpr (kGradient) term[0].store(e + i);
    });
    sum = sums[0];
    mass += sums[1];
    rest -= sums[2];
  } else {
    sum = blocked_sum<V>(n, [&](int64_t i, auto access) {
      ahead.fetch(i);
      const V value = softmax_exp(access.load(x + i, kLowest<T>) - highest);
      if constexpr (kGradient) value.store(e + i);
      return value;
    });
  }
  terms.set(row, sum, mass, rest);
  if constexpr (kGradient) {
    const T factor = static_cast<T>(c.scale[row] * mass / sum);
    const V scale = c.scale[row];
    write_row(dx, n, c.shape.stream, [&](int64_t i, auto access) {
      V gradient = V::load(e + i) * V(factor);
      if constexpr (kSoft) gradient -= soft_mass_in_row(c, q, i, access) * scale;
      return gradient;
    });
    if (c.target != nullptr) dx[target] -= c.scale[row] * c.hit[row];
  }
}

// Lanes for rows [first, first + rows) of the chunk, as many as C has room for; dx and x may
// both be the group.
template <class T, bool kSoft, bool kGradient, class Out, class In, class Q, class C>
TILEGRAD_INLINE void some_lanes(const CrossEntropyRows<T>& c, LossTerms<T>& terms, int64_t first,
                                int64_t rows, Out dx, In x, Q q, Group<T> group, C) {
  using V = Vec<T>;
  constexpr int kVectors = C::count;
  const int64_t n = c.shape.classes;
  const int64_t* target = c.target == nullptr ? nullptr : c.target + first;
  const int present = rows < kVectors * V::kSize ? static_cast<int>(rows) : kVectors * V::kSize;

  V highest[kVectors];
  lane_max(highest, group, x, n);
  // Read before dlogits, which may be logits, is written.
  T top[kVectors * V::kSize], picked[kVectors * V::kSize] = {}, counts[kVectors * V::kSize];
#pragma GCC unroll 8
  for (int u = 0; u < kVectors; ++u) highest[u].store(top + u * V::kSize);
  for (int lane = 0; lane < present; ++lane) {
    const bool hits = target != nullptr && target[lane] != kIgnoredRow;
    if (hits) picked[lane] = group.at(target[lane])[lane] - top[lane];
    counts[lane] = target == nullptr || hits;
  }
  const auto soft_at = [&](int64_t k, int u) {
    const V weight = c.weight == nullptr ? T(1) : c.weight[k];
    return soft_mass(c, q.p == nullptr ? nullptr : q.at(k, u), weight, q.access);
  };

  constexpr int kTerms = kSoft ? 3 : 1;
  V sums[kTerms][kVectors];
  lane_sums(sums, n, [&](int64_t k, int u, V(&term)[kTerms]) {
    if constexpr (kGradient) dx.fetch(k, u);
    const V z = group.load(k, u) - highest[u];
    term[0] = softmax_exp(z);
    if constexpr (kSoft) {
      term[1] = soft_at(k, u);
      term[2] = term[1] * z;
    }
    if constexpr (kGradient) group.store(k, u, term[0]);
  });

  V factor[kVectors], scale[kVectors];
  Mask<V> counted[kVectors];
#pragma GCC unroll 8
  for (int u = 0; u < kVectors; ++u) {
    const int left = present - u * V::kSize;
    const Part<V> access{left < V::kSize ? left : V::kSize};
    const int64_t at = first + u * V::kSize;
    const V hit = access.load(c.hit + at);
    // An ignored row counts for nothing even where its exponentials are NaN.
    counted[u] = access.load(counts + u * V::kSize) != V(T(0));
    scale[u] = access.load(c.scale + at);
    V mass = hit, rest = -(hit * V::load(picked + u * V::kSize));
    if constexpr (kSoft) {
      mass += sums[1][u];
      rest -= sums[2][u];
    }
    factor[u] = scale[u] * mass / sums[0][u];
    access.store(terms.sum + at, select(counted[u], sums[0][u], V(T(1))));
    access.store(terms.mass + at, select(counted[u], mass, V(T(0))));
    access.store(terms.rest + at, select(counted[u], rest, V(T(0))));
  }
  if constexpr (kGradient) {
    for (int64_t k = 0; k < n; ++k) {
#pragma GCC unroll 8
      for (int u = 0; u < kVectors; ++u) {
        V gradient = group.load(k, u) * factor[u];
        if constexpr (kSoft) gradient -= soft_at(k, u) * scale[u];
        dx.store(k, u, select(counted[u], gradient, V(T(0))));
      }
    }
    for (int lane = 0; target != nullptr && lane < present; ++lane) {
      if (target[lane] == kIgnoredRow) continue;
      dx.at(target[lane])[lane] -= c.scale[first + lane] * c.hit[first + lane];
    }
  }
}

template <class T, bool kSoft, bool kGradient>
[[gnu::flatten, gnu::noinline]] void all_rows(const CrossEntropyRows<T>& c, LossTerms<T>& terms) {
  if (c.shape.class_stride == 1 && c.shape.classes > kGroupedClasses) {
    for (int64_t row = 0; row < c.shape.rows; ++row) {
      one_row<T, kSoft, kGradient>(c, terms, row);
    }
    return;
  }
  T* const lanes = static_cast<T*>(c.scratch);
  const ClassRows& shape = c.shape;
  const bool has_q = kSoft && c.probabilities != nullptr;
  for (int64_t row = 0; row < shape.rows; row += kGroup<T>) {
    const int rows = group_size<T>(shape.rows - row);
    if (in_place<T>(shape)) {
      for_stretches(shape, row, rows, [&](int64_t offset, int first, int count) {
        for_columns<Vec<T>>(count, [&](int64_t i, auto columns, auto access) {
          const int64_t at = offset + i;
          some_lanes<T, kSoft, kGradient>(
              c, terms, row + first + i, count - i,
              columns_at(kGradient ? c.dlogits + at : nullptr, shape, access),
              columns_at(c.logits + at, shape, access),
              columns_at(has_q ? c.probabilities + at : nullptr, shape, access), Group<T>{lanes},
              columns);
        });
      });
      continue;
    }
    gather_rows(lanes, c.logits, shape, row, rows);
    T* const q = lanes + shape.classes * kPitch<T>;
    if (has_q) gather_rows(q, c.probabilities, shape, row, rows);
    for_lanes<T>(rows, [&](int lane, auto columns) {
      const Group<T> group{lanes + lane};
      const Group<T> probabilities{has_q ? q + lane : nullptr};
      some_lanes<T, kSoft, kGradient>(c, terms, row + lane, rows - lane, group, group,
                                      probabilities, group, columns);
    });
    if constexpr (kGradient) scatter_rows(c.dlogits, lanes, shape, row, rows);
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
  if (c.shape.stream) native::finish_streams();
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
