// SPDX-License-Identifier: MIT
// Class indices of any integer type, read in place; one out of range is told by its value.
#pragma once

#include <cstdint>

#include "numeric.cuh"
//
#include "../ops.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

inline constexpr int64_t kIgnoredClass = -2;  // loss and gradient 0
inline constexpr int64_t kBadClass = -3;      // loss NaN, gradient 0

template <class Index>
__device__ inline int64_t index_at(const void* data, int64_t i) {
  return static_cast<int64_t>(static_cast<const Index*>(data)[i]);
}

__device__ inline int64_t index_at(const IndexView& view, int64_t i) {
  int64_t index = 0;
  switch (view.is_signed ? -view.bytes : view.bytes) {
    case -1:
      index = index_at<int8_t>(view.data, i);
      break;
    case -2:
      index = index_at<int16_t>(view.data, i);
      break;
    case -4:
      index = index_at<int32_t>(view.data, i);
      break;
    case -8:
      index = index_at<int64_t>(view.data, i);
      break;
    case 1:
      index = index_at<uint8_t>(view.data, i);
      break;
    case 2:
      index = index_at<uint16_t>(view.data, i);
      break;
    case 4:
      index = index_at<uint32_t>(view.data, i);
      break;
    default:
      index = index_at<int64_t>(view.data, i);
      // Above int64_t it is no class, and must not turn into a negative ignore_index.
      if (index < 0) index = INT64_MAX;
  }
  return index;
}

// The class of a row, kIgnoredClass or kBadClass.
__device__ inline int64_t class_at(const IndexView& view, int64_t row, int64_t classes,
                                   int64_t ignore_index) {
  const int64_t target = index_at(view, row);
  if (target == ignore_index) return kIgnoredClass;
  return target >= 0 && target < classes ? target : kBadClass;
}

// What a row's class adds to the divisor of a mean.
template <class T>
struct ClassWeight {
  IndexView indices;
  const T* weight;  // or null
  int64_t classes, ignore_index;

  __device__ double operator()(int64_t row) const {
    const int64_t target = class_at(indices, row, classes, ignore_index);
    if (target < 0) return 0;
    return weight == nullptr ? 1.0 : static_cast<double>(widen(weight[target]));
  }
};

}  // namespace tilegrad::TILEGRAD_BACKEND
