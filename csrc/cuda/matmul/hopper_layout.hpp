// SPDX-License-Identifier: MIT
// Which matrices Hopper's copy engine can read and write as they lie.
#pragma once

#include <cstdint>

#include "../../ops.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

template <class T>
inline constexpr int64_t kEngineChunk = 16 / sizeof(T);
template <class T>
inline constexpr int64_t kEngineStrideLimit = (int64_t{1} << 40) / sizeof(T);

// One of its axes is contiguous, the steps of the others are multiples of 16 bytes, and so is its
// address. Its size need not be: the engine cuts at an element.
template <class T>
bool engine_reads(const Matrix<const T>& x, int64_t rows, int64_t cols) {
  const auto step = [](int64_t stride) {
    return stride % kEngineChunk<T> == 0 && stride < kEngineStrideLimit<T>;
  };
  const bool by_row = x.col_stride == 1;
  const int64_t length = by_row ? cols : rows;
  const int64_t other = by_row ? x.row_stride : x.col_stride;
  return (by_row || x.row_stride == 1) && reinterpret_cast<uintptr_t>(x.data) % 16 == 0 &&
         step(other) && other >= length && step(x.batch_stride) && x.batch_stride >= 0;
}

// The same of a result, whose columns are contiguous.
template <class T>
bool engine_writes(const Matrix<T>& c, const MatmulSize& size) {
  const auto step = [](int64_t count, int64_t stride, int64_t least) {
    return count == 1 ||
           (stride % kEngineChunk<T> == 0 && stride >= least && stride < kEngineStrideLimit<T>);
  };
  return reinterpret_cast<uintptr_t>(c.data) % 16 == 0 && step(size.m, c.row_stride, size.n) &&
         step(size.batch, c.batch_stride, 1);
}

}  // namespace tilegrad::TILEGRAD_BACKEND
