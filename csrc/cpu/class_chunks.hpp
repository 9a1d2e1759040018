// SPDX-License-Identifier: MIT
// Cuts (outer, classes, inner) into chunks of rows that lie regularly in memory.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../ops.hpp"
#include "parallel.hpp"
#include "simd/softmax.hpp"

namespace tilegrad::cpu {

constexpr int64_t kChunkRows = 64;

// Rows [row, row + rows.rows) of the (outer, inner) rows; their first element is at `offset`.
struct ClassChunk {
  int64_t row;
  int64_t offset;
  ClassRows rows;
};

// f(chunk) for chunks of at most kChunkRows rows, on the pool. A row is never cut, so its result
// cannot depend on the chunks.
template <class F>
void for_class_chunks(const Context& context, ClassShape shape, double nanoseconds_an_element,
                      F f) {
  constexpr int64_t kTaskElements = 8192;
  const auto [outer, classes, inner] = shape;
  const int64_t row_size = std::max<int64_t>(classes, 1);
  const int64_t line = inner == 1 ? outer : inner;  // rows next to each other
  if (outer * inner == 0) return;
  const int64_t width =
      inner == 1 ? std::clamp<int64_t>(kTaskElements / row_size, 1, kChunkRows) : kChunkRows;
  const int64_t chunks_a_line = (line + width - 1) / width;
  const int64_t chunks = chunks_a_line * (outer * inner / line);
  const int64_t grain = std::max<int64_t>(1, kTaskElements / (std::min(width, line) * row_size));
  const double time = static_cast<double>(outer * inner) *
                      (static_cast<double>(classes) * nanoseconds_an_element + 10);
  parallel_ranges(context, chunks, grain, time, [&](int64_t begin, int64_t end, int) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t first = chunk % chunks_a_line * width;
      const int64_t row = chunk / chunks_a_line * line + first;
      const int64_t rows = std::min(width, line - first);
      if (inner == 1) {
        f(ClassChunk{row, row * classes, {rows, classes, classes, 1}});
      } else {
        f(ClassChunk{row, row / inner * classes * inner + first, {rows, classes, 1, inner}});
      }
    }
  });
}

}  // namespace tilegrad::cpu
