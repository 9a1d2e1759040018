// SPDX-License-Identifier: MIT
// Math: the sums of a row from which a distance or a cosine is made, and the row's gradient once
//   that is known (../../row_losses.hpp).
// Shapes: rows of n elements: two of a cosine, three of a triplet.
// Parallelism: kSize elements an instruction; sums in blocks (vectors.hpp).
// Memory: the rows are read twice, the second time from the cache; each gradient is written once.
// Source: the losses are ../../row_losses.hpp's.
#include "distance_losses.hpp"

#include "../../row_losses.hpp"
#include "../isa.hpp"
#include "vectors.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

// The differences at i; without swap two.
template <class T, int kCount, class Access>
TILEGRAD_INLINE void differences(Vec<T> (&d)[kCount], const TripletRow<T>& row, int64_t i,
                                 Access access) {
  using V = Vec<T>;
  const V a = access.load(row.inputs.anchor + i), p = access.load(row.inputs.positive + i);
  const V n = access.load(row.inputs.negative + i), eps = row.eps;
  d[0] = a - p + eps;
  d[1] = a - n + eps;
  if constexpr (kCount > 2) d[2] = p - n + eps;
}

template <class T, Norm kNorm, int kCount>
TILEGRAD_INLINE void triplet_sums(double* sums, const TripletRow<T>& row) {
  using V = Vec<T>;
  double totals[kCount];
  if constexpr (kNorm == Norm::infinity) {
    V largest[kCount];
    for (V& v : largest) v = V(T(0));
    for_vectors<V>(0, row.n, [&](int64_t i, int, auto access) {
      V d[kCount];
      differences(d, row, i, access);
#pragma GCC unroll 4
      for (int k = 0; k < kCount; ++k) largest[k] = max(largest[k], access.keep(abs(d[k])));
    });
    for (int k = 0; k < kCount; ++k) totals[k] = reduce_max(largest[k]);
  } else {
    blocked_sums<V>(totals, row.n, [&](int64_t i, auto access, V(&terms)[kCount]) {
      differences(terms, row, i, access);
#pragma GCC unroll 4
      for (int k = 0; k < kCount; ++k) terms[k] = access.keep(norm_term<kNorm>(terms[k], 0));
    });
  }
  for (int k = 0; k < kCount; ++k) sums[k] = totals[k];
}

template <class T, Norm kNorm>
[[gnu::flatten]] void triplet_sums(double* sums, const TripletRow<T>& row) {
  row.swap ? triplet_sums<T, kNorm, 3>(sums, row) : triplet_sums<T, kNorm, 2>(sums, row);
}

template <class T, Norm kNorm, int kCount>
TILEGRAD_INLINE void triplet_gradients(const TripletSlopes<T>& slopes, const TripletRow<T>& row) {
  using V = Vec<T>;
  const Triplet<T> dx = slopes.gradients;
  V factor[kCount], norm[kCount];
  for (int k = 0; k < kCount; ++k) {
    factor[k] = slopes.factor[k];
    norm[k] = slopes.norm[k];
  }
  for_vectors<V>(0, row.n, [&](int64_t i, int, auto access) {
    V d[kCount];
    differences(d, row, i, access);
#pragma GCC unroll 4
    for (int k = 0; k < kCount; ++k) d[k] = norm_slope<kNorm>(d[k], factor[k], norm[k], 0);
    V positive = -d[0], negative = -d[1];
    if constexpr (kCount > 2) {
      positive += d[2];
      negative -= d[2];
    }
    if (dx.anchor != nullptr) access.store(dx.anchor + i, d[0] + d[1]);
    if (dx.positive != nullptr) access.store(dx.positive + i, positive);
    if (dx.negative != nullptr) access.store(dx.negative + i, negative);
  });
}

template <class T, Norm kNorm>
[[gnu::flatten]] void triplet_gradients(const TripletSlopes<T>& slopes, const TripletRow<T>& row) {
  row.swap ? triplet_gradients<T, kNorm, 3>(slopes, row)
           : triplet_gradients<T, kNorm, 2>(slopes, row);
}

template <class T>
[[gnu::flatten]] void maxima(double* counts, const TripletRow<T>& row, const T* norm) {
  using V = Vec<T>;
  double totals[kDifferences];
  blocked_sums<V>(totals, row.n, [&](int64_t i, auto access, V(&terms)[kDifferences]) {
    differences(terms, row, i, access);
#pragma GCC unroll 4
    for (int k = 0; k < kDifferences; ++k) {
      terms[k] = access.keep(select(abs(terms[k]) == V(norm[k]), V(T(1)), V(T(0))));
    }
  });
  for (int k = 0; k < kDifferences; ++k) counts[k] = totals[k];
}

template <class T>
[[gnu::flatten]] void cosine_sums(double* sums, const T* x1, const T* x2, int64_t n) {
  using V = Vec<T>;
  double totals[3];
  blocked_sums<V>(totals, n, [&](int64_t i, auto access, V(&terms)[3]) {
    const V a = access.load(x1 + i), b = access.load(x2 + i);
    terms[0] = a * b;
    terms[1] = a * a;
    terms[2] = b * b;
  });
  for (int k = 0; k < 3; ++k) sums[k] = totals[k];
}

template <class T>
[[gnu::flatten]] void cosine_gradients(T* dx1, T* dx2, const T* x1, const T* x2, int64_t n, T cross,
                                       T own1, T own2) {
  using V = Vec<T>;
  const V both = cross, first = own1, second = own2;
  for_vectors<V>(0, n, [&](int64_t i, int, auto access) {
    const V a = access.load(x1 + i), b = access.load(x2 + i);
    if (dx1 != nullptr) access.store(dx1 + i, fma(both, b, first * a));
    if (dx2 != nullptr) access.store(dx2 + i, fma(both, a, second * b));
  });
}

template <class T, Norm kNorm>
constexpr TripletKernels<T> kTriplet = {triplet_sums<T, kNorm>, triplet_gradients<T, kNorm>};

template <class T>
constexpr DistanceKernels<T> kTable = {
    kTriplet<T, Norm::one>, kTriplet<T, Norm::two>, kTriplet<T, Norm::infinity>, maxima<T>,
    cosine_sums<T>,         cosine_gradients<T>};

}  // namespace

template <>
const DistanceKernels<float>& table() {
  return kTable<float>;
}
template <>
const DistanceKernels<double>& table() {
  return kTable<double>;
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
