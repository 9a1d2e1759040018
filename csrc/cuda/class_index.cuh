// SPDX-License-Identifier: MIT
// Class indices of any integer type, read where they are.
#pragma once

#include <cstdint>

#include "../ops.hpp"
#include "launch.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

template <class Index>
__device__ inline int64_t index_at(const void* data, int64_t i) {
  return static_cast<int64_t>(static_cast<const Index*>(data)[i]);
}

__device__ inline int64_t read_index(IndexView view, int64_t i) {
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
      // Above int64_t it is no class, and must not turn into a negative one that is ignored.
      if (index < 0) index = INT64_MAX;
  }
  return index;
}

}  // namespace tilegrad::TILEGRAD_BACKEND
