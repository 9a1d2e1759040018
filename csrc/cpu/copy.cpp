// SPDX-License-Identifier: MIT
// Copies: strided arrays in C order, one value everywhere.
#include <algorithm>
#include <bit>
#include <cmath>
#include <type_traits>

#include "../ops.hpp"
#include "bfloat16.hpp"

namespace tilegrad::cpu {
namespace {

constexpr int kMaxAxes = 32;

// A float that rounds to 16 bits as the double does: rounded to odd, it still tells on which side
// of a tie the double lies.
float round_to_odd(double value) {
  const auto nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) == value || std::isnan(value)) return nearest;
  uint32_t bits = std::bit_cast<uint32_t>(nearest);
  if (std::fabs(static_cast<double>(nearest)) > std::fabs(value)) --bits;
  return std::bit_cast<float>(bits | 1u);
}

}  // namespace

template <class T>
void pack(Context&, T* y, const T* x, const StridedShape& shape) {
  int64_t size = 1;
  for (int axis = 0; axis < shape.count; ++axis) size *= shape.sizes[axis];
  if (size == 0) return;
  const int last = shape.count - 1;
  if (last < 0) {
    *y = *x;
    return;
  }
  const int64_t n = shape.sizes[last];
  const int64_t stride = shape.strides[last];
  int64_t index[kMaxAxes] = {};
  const T* row = x;
  for (int64_t done = 0; done < size; done += n) {
    for (int64_t i = 0; i < n; ++i) y[done + i] = row[i * stride];
    for (int axis = last - 1; axis >= 0; --axis) {
      row += shape.strides[axis];
      if (++index[axis] < shape.sizes[axis]) break;
      row -= index[axis] * shape.strides[axis];
      index[axis] = 0;
    }
  }
}

template <class T>
void fill(Context&, T* y, int64_t n, double value) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    std::fill_n(y, n, rounded(round_to_odd(value)));
  } else {
    std::fill_n(y, n, static_cast<T>(value));
  }
}

template void pack(Context&, float*, const float*, const StridedShape&);
template void pack(Context&, double*, const double*, const StridedShape&);
template void pack(Context&, bfloat16*, const bfloat16*, const StridedShape&);
template void pack(Context&, uint8_t*, const uint8_t*, const StridedShape&);
template void pack(Context&, uint16_t*, const uint16_t*, const StridedShape&);
template void pack(Context&, uint32_t*, const uint32_t*, const StridedShape&);
template void pack(Context&, uint64_t*, const uint64_t*, const StridedShape&);
template void fill(Context&, float*, int64_t, double);
template void fill(Context&, double*, int64_t, double);
template void fill(Context&, bfloat16*, int64_t, double);

}  // namespace tilegrad::cpu
