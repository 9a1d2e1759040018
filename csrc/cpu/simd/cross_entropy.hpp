// SPDX-License-Identifier: MIT
// The cross-entropy kernel that every ISA supplies.
#pragma once

#include <cstdint>

#include "softmax.hpp"

namespace tilegrad::cpu {

constexpr int64_t kIgnoredRow = -1;

// At most kMaxCrossEntropyRows rows. The target of row r is `hit[r]` at class target[r] and, where
// `soft`, weight_c (keep q_c + floor) at every class c; q is 0 and weight 1 where null.
constexpr int64_t kMaxCrossEntropyRows = 64;

template <class T>
struct CrossEntropyRows {
  T* loss;     // one element a row, or null
  T* dlogits;  // null, or like logits; may be logits
  const T* logits;
  ClassRows shape;
  const int64_t* target;  // null for probabilities; else a class or kIgnoredRow
  const T* hit;           // 0 for probabilities
  const T* scale;         // of the row's gradient
  bool soft;
  const T* probabilities;  // like logits
  const T* weight;         // (classes)
  T keep, floor;
  void* scratch;  // class_scratch_bytes()
};

template <class T>
struct CrossEntropyKernels {
  void (*rows)(const CrossEntropyRows<T>&);
};

}  // namespace tilegrad::cpu
