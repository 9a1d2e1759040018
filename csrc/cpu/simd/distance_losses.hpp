// SPDX-License-Identifier: MIT
// The distance losses' kernels that every ISA supplies: one row of n elements.
#pragma once

#include <cstdint>

#include "../../ops.hpp"

namespace tilegrad::cpu {

// The differences of a triplet: [0] anchor - positive + eps, [1] anchor - negative + eps and, with
// swap, [2] positive - negative + eps.
constexpr int kDifferences = 3;

template <class T>
struct TripletRow {
  Triplet<const T> inputs;
  int64_t n;
  T eps;
  bool swap;
};

// Of each norm what norm_slope() takes; dx are null where not wanted.
template <class T>
struct TripletSlopes {
  Triplet<T> gradients;
  T factor[kDifferences];
  T norm[kDifferences];
};

// One table for each of the norms one, two and infinity.
template <class T>
struct TripletKernels {
  // The sums of the norm's terms, for infinity the largest.
  void (*sums)(double* sums, const TripletRow<T>& row);
  void (*gradients)(const TripletSlopes<T>& slopes, const TripletRow<T>& row);
};

template <class T>
struct DistanceKernels {
  TripletKernels<T> one, two, infinity;
  // How many elements of each difference are as large as its norm.
  void (*maxima)(double* counts, const TripletRow<T>& row, const T* norm);
  // x1 x2, x1 x1, x2 x2, added up.
  void (*cosine_sums)(double* sums, const T* x1, const T* x2, int64_t n);
  // dx1 = cross x2 + own1 x1, dx2 = cross x1 + own2 x2. Either may be null.
  void (*cosine_gradients)(T* dx1, T* dx2, const T* x1, const T* x2, int64_t n, T cross, T own1,
                           T own2);
};

}  // namespace tilegrad::cpu
