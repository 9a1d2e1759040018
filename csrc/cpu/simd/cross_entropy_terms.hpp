// SPDX-License-Identifier: MIT
// What a row's cross-entropy is made of: the terms of its loss, and the soft part of its target.
#pragma once

#include "cross_entropy.hpp"
#include "vec.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {

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

}  // namespace tilegrad::cpu::TILEGRAD_ISA
