// SPDX-License-Identifier: MIT
// Rows of bfloat16 that are float for as long as a kernel works on them.
// Parallelism: a task is a few rows, or a few columns where classes lie apart.
// Memory: 2 bytes an element in and out. A task widens its part into scratch memory in L1 (a row
//   longer than that: L2), runs the kernel for float there, in place, and rounds the result once.
#pragma once

#include <algorithm>

#include "../ops.hpp"
#include "parallel.hpp"
#include "simd/convert.hpp"
#include "simd/cross_entropy.hpp"
#include "simd/softmax.hpp"

namespace tilegrad::cpu {

// Rows [row, row + count) of the (outer, inner) rows of an array (outer, classes, inner): whole
// rows one behind the other, or with inner > 1 neighbouring columns of one matrix.
struct Bfloat16Part {
  int64_t row, count;
  ClassShape shape;

  bool columns() const { return shape.inner > 1; }
  // How they lie in scratch memory: without gaps, but a single column is still one to the kernels.
  ClassRows packed() const {
    if (columns()) return {count, shape.classes, 1, std::max<int64_t>(count, 2)};
    return {count, shape.classes, shape.classes, 1};
  }
  // f(in scratch memory, in the array, elements) for each stretch that is contiguous in both.
  template <class F>
  void for_stretches(F f) const {
    if (!columns()) return f(0, row * shape.classes, count * shape.classes);
    const int64_t first = row / shape.inner * shape.classes * shape.inner + row % shape.inner;
    if (count == shape.inner) return f(0, first, count * shape.classes);
    const int64_t stride = packed().class_stride;
    for (int64_t k = 0; k < shape.classes; ++k) f(k * stride, first + k * shape.inner, count);
  }
  void widen(const ConvertKernels& kernel, float* y, const bfloat16* x) const {
    for_stretches(
        [&](int64_t packed, int64_t at, int64_t n) { kernel.widen(y + packed, x + at, n); });
  }
  void narrow(const ConvertKernels& kernel, bfloat16* y, const float* x) const {
    for_stretches(
        [&](int64_t packed, int64_t at, int64_t n) { kernel.narrow(y + at, x + packed, n); });
  }
};

// f(part, scratch) on the pool, where scratch(i) is the i-th of `buffers` floats of the part, and
// scratch(buffers) what the kernels ask for. A row is never cut, and the kernels give a row the
// same bits whatever lies beside it.
template <class F>
void for_parts(Context& context, ClassShape shape, int buffers, F f) {
  constexpr int64_t kPartElements = 8192;     // of rows that a task widens at a time: 32 KiB
  constexpr int64_t kColumnElements = 65536;  // of columns: 256 KiB, in L2
  constexpr int64_t kFewestColumns = 16;      // whole vectors of every ISA
  constexpr int64_t kApart = 64;              // floats: threads do not share a cache line
  constexpr double kNanosecondsAnElement = 0.6;
  const auto [outer, classes, inner] = shape;
  const int64_t rows = outer * inner;
  if (rows == 0) return;
  const bool columns = inner > 1;
  const int64_t row_size = std::max<int64_t>(classes, 1);
  const int64_t room = columns ? kColumnElements : kPartElements;
  const int64_t fewest = columns ? kFewestColumns : 1;
  const int64_t line = columns ? inner : outer;  // rows that may share a part
  const int64_t widest = std::clamp(room / row_size, fewest, kMaxCrossEntropyRows);
  const int64_t width = std::min(line, widest / fewest * fewest);
  const int64_t parts_a_line = (line + width - 1) / width;
  const int64_t parts = parts_a_line * (rows / line);
  const int64_t grain = std::max<int64_t>(1, kPartElements / (width * row_size));
  const double time =
      static_cast<double>(rows) * (static_cast<double>(classes) * kNanosecondsAnElement + 10);

  const auto whole = [](int64_t floats) { return (floats + kApart - 1) / kApart * kApart; };
  const int64_t size = whole(width * classes);
  const int64_t kernel_size = whole(class_scratch_bytes({1, classes, 1, columns ? 2 : 1}) /
                                    static_cast<int64_t>(sizeof(float)));
  const int64_t own_size = buffers * size + kernel_size;
  WorkspaceScope scope(context);
  const int64_t threads = std::min<int64_t>(thread_limit(context), (parts + grain - 1) / grain);
  float* const all = context.workspace->take<float>(threads * own_size);
  parallel_ranges(context, parts, grain, time, [&](int64_t begin, int64_t end, int thread) {
    float* const own = all + thread * own_size;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % parts_a_line * width;
      f(Bfloat16Part{i / parts_a_line * line + first, std::min(width, line - first), shape},
        [=](int buffer) { return own + buffer * size; });
    }
  });
}

}  // namespace tilegrad::cpu
