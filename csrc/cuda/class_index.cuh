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

// Above int64_t an index is no class; it must not turn into a negative number either, which could
// be one that is ignored.
__device__ inline int64_t read_index(const IndexView& view, int64_t i) {
  switch (view.is_signed ? -view.bytes : view.bytes) {
    case -1:
      return index_at<int8_t>(view.data, i);
    case -2:
      return index_at<int16_t>(view.data, i);
    case -4:
      return index_at<int32_t>(view.data, i);
    case -8:
      return index_at<int64_t>(view.data, i);
    case 1:
      return index_at<uint8_t>(view.data, i);
    case 2:
      return index_at<uint16_t>(view.data, i);
    case 4:
      return index_at<uint32_t>(view.data, i);
    default: {
      const int64_t index = index_at<int64_t>(view.data, i);
      return index < 0 ? INT64_MAX : index;
    }
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
