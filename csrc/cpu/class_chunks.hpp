// SPDX-License-Identifier: MIT
// Cuts (outer, classes, inner) into chunks of rows that lie regularly in memory.
#pragma once

#include <algorithm>
#include <cstddef>
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
  void* scratch;  // of the thread that works on the chunk
};

// f(chunk) for chunks of at most kChunkRows rows, on the pool. A row is never cut, so its result
// cannot depend on the chunks. `result_bytes` is what f writes beside what it reads, 0 if in place.
template <class F>
void for_class_chunks(Context& context, ClassShape shape, double nanoseconds_an_element,
                      int64_t result_bytes, F f) {
  constexpr int64_t kTaskElements = 8192;
  constexpr int64_t kCacheLine = 64;
  constexpr int64_t kStreamBytes = int64_t{32} << 20;  // as much as a core's share of L3, and more
  const auto [outer, classes, inner] = shape;
  const int64_t rows = outer * inner;
  if (rows == 0) return;
  const bool contiguous = inner == 1;
  const int64_t row_size = std::max<int64_t>(classes, 1);
  const int64_t width =
      contiguous ? std::clamp<int64_t>(kTaskElements / row_size, 1, kChunkRows) : kChunkRows;
  const int64_t chunks = (rows + width - 1) / width;
  const int64_t grain = std::max<int64_t>(1, kTaskElements / (std::min(width, rows) * row_size));
  const double time =
      static_cast<double>(rows) * (static_cast<double>(classes) * nanoseconds_an_element + 10);

  ClassRows chunk_shape{width, classes, classes, 1};
  if (!contiguous) {
    chunk_shape.row_stride = 1;
    chunk_shape.class_stride = chunk_shape.line = inner;
  }
  chunk_shape.stream = result_bytes >= kStreamBytes;
  WorkspaceScope scope(context);
  const int64_t scratch_size = class_scratch_bytes(chunk_shape) + kCacheLine;  // threads keep apart
  const int64_t threads = std::min<int64_t>(thread_limit(context), (chunks + grain - 1) / grain);
  auto* const scratch = context.workspace->take<std::byte>(threads * scratch_size);
  parallel_ranges(context, chunks, grain, time, [&](int64_t begin, int64_t end, int thread) {
    ClassChunk c{0, 0, chunk_shape, scratch + thread * scratch_size};
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      c.row = chunk * width;
      c.rows.rows = std::min(width, rows - c.row);
      c.rows.first = contiguous ? 0 : c.row % inner;
      c.offset = (c.row - c.rows.first) * classes;
      f(c);
    }
  });
}

}  // namespace tilegrad::cpu
