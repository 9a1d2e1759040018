// SPDX-License-Identifier: MIT
// Math: the ops on bfloat16 that are those on float between a widening and a rounding.
// Shapes: those of the ops in ../ops.hpp.
// Parallelism: a task is a run of elements, a few rows, or a few columns where classes lie apart.
// Memory: 2 bytes an element in and out. A task widens its part into scratch memory in L1 (a row
//   longer than that: L2), runs the kernel for float there, in place, and rounds the result once.
#include "bfloat16.hpp"

#include <algorithm>

#include "../ops.hpp"
#include "class_targets.hpp"
#include "isa.hpp"
#include "parallel.hpp"
#include "reduce.hpp"
#include "simd/activation.hpp"
#include "simd/convert.hpp"
#include "simd/cross_entropy.hpp"
#include "simd/softmax.hpp"
#include "variant.hpp"

namespace tilegrad::cpu {
namespace {

constexpr int64_t kBlock = 2048;            // elements of a run that are float at a time: 8 KiB
constexpr int64_t kGrain = 8 * kBlock;      // elements of a run that a task takes
constexpr int64_t kPartElements = 8192;     // of rows that a task widens at a time: 32 KiB
constexpr int64_t kColumnElements = 65536;  // of columns: 256 KiB, in L2
constexpr int64_t kFewestColumns = 16;      // whole vectors of every ISA
constexpr double kNanosecondsAnElement = 0.6;

// ---- runs --------------------------------------------------------------------------------------

// f(begin, count) for the blocks of a run, on the pool.
template <class F>
void for_blocks(const Context& context, int64_t n, F f) {
  const double time = kNanosecondsAnElement * static_cast<double>(n);
  parallel_ranges(context, n, kGrain, time, [&](int64_t begin, int64_t end, int) {
    for (int64_t at = begin; at < end; at += kBlock) f(at, std::min(kBlock, end - at));
  });
}

// ---- rows --------------------------------------------------------------------------------------

// Rows [row, row + count) of the (outer, inner) rows of an array (outer, classes, inner): whole
// rows one behind the other, or with inner > 1 neighbouring columns of one matrix.
struct Part {
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

  constexpr int64_t kApart = 64;  // floats: threads do not share a cache line
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
      f(Part{i / parts_a_line * line + first, std::min(width, line - first), shape},
        [=](int buffer) { return own + buffer * size; });
    }
  });
}

}  // namespace

// ---- activations -------------------------------------------------------------------------------

template <>
void activation(Context& context, bfloat16* y, const bfloat16* x, int64_t n, Activation f) {
  const auto& convert = kernels<ConvertKernels>();
  const auto& kernel = kernels<ActivationKernels<float>>();
  for_blocks(context, n, [&](int64_t at, int64_t count) {
    alignas(64) float block[kBlock];
    convert.widen(block, x + at, count);
    kernel.forward(block, block, count, f);
    convert.narrow(y + at, block, count);
  });
}

template <>
void activation_backward(Context& context, bfloat16* dx, const bfloat16* dy, const bfloat16* saved,
                         bool saved_is_output, int64_t n, Activation f) {
  const auto& convert = kernels<ConvertKernels>();
  const auto& kernel = kernels<ActivationKernels<float>>();
  for_blocks(context, n, [&](int64_t at, int64_t count) {
    alignas(64) float gradient[kBlock], value[kBlock];
    convert.widen(gradient, dy + at, count);
    convert.widen(value, saved + at, count);
    kernel.backward(gradient, gradient, value, saved_is_output, count, f);
    convert.narrow(dx + at, gradient, count);
  });
}

// ---- softmax -----------------------------------------------------------------------------------

template <>
void softmax(Context& context, bfloat16* y, const bfloat16* x, ClassShape shape, bool log) {
  const auto& convert = kernels<ConvertKernels>();
  const auto& kernel = kernels<SoftmaxKernels<float>>();
  for_parts(context, shape, 1, [&](const Part& part, auto scratch) {
    float* const row = scratch(0);
    part.widen(convert, row, x);
    kernel.forward(row, row, part.packed(), log, scratch(1));
    part.narrow(convert, y, row);
  });
}

template <>
void softmax_backward(Context& context, bfloat16* dx, const bfloat16* dy, const bfloat16* y,
                      ClassShape shape, bool log) {
  const auto& convert = kernels<ConvertKernels>();
  const auto& kernel = kernels<SoftmaxKernels<float>>();
  for_parts(context, shape, 2, [&](const Part& part, auto scratch) {
    float* const gradient = scratch(0);
    float* const result = scratch(1);
    part.widen(convert, gradient, dy);
    part.widen(convert, result, y);
    kernel.backward(gradient, gradient, result, part.packed(), log);
    part.narrow(convert, dx, gradient);
  });
}

// ---- cross_entropy -----------------------------------------------------------------------------

// The order of work is that of cross_entropy.cpp.
template <>
void cross_entropy(Context& context, bfloat16* loss, bfloat16* dlogits, const bfloat16* grad_output,
                   const CrossEntropy<bfloat16>& problem, int64_t* bad_row,
                   std::string_view variant) {
  check_no_variant("cross_entropy", variant);
  const auto& convert = kernels<ConvertKernels>();
  const auto& kernel = kernels<CrossEntropyKernels<float>>();
  const auto [outer, classes, inner] = problem.shape;
  const int64_t rows = outer * inner;
  const bool by_index = problem.indices.data != nullptr;
  const bool by_row = problem.reduction == Reduction::none;
  const double smoothing = problem.label_smoothing;

  WorkspaceScope scope(context);
  float* weight = nullptr;
  if (problem.weight != nullptr) {
    weight = context.workspace->take<float>(classes);
    convert.widen(weight, problem.weight, classes);
  }
  double denominator = classes == 0 ? 0 : static_cast<double>(rows);
  *bad_row = -1;
  if (by_index) {
    const TargetSum targets =
        check_targets(context, problem.indices, rows, classes, problem.ignore_index, weight);
    *bad_row = targets.bad_row;
    if (targets.bad_row >= 0) return;
    denominator = targets.weight;
  }
  if (problem.reduction != Reduction::mean) denominator = 1;
  const double scale =
      (by_row || grad_output == nullptr ? 1.0 : static_cast<double>(widened(*grad_output))) /
      denominator;

  float* const row_loss = loss == nullptr ? nullptr : context.workspace->take<float>(rows);
  if (classes == 0 && row_loss != nullptr) std::fill_n(row_loss, rows, 0.0f);
  if (classes != 0 && (row_loss != nullptr || dlogits != nullptr)) {
    const int buffers = by_index ? 1 : 2;
    for_parts(context, problem.shape, buffers, [&](const Part& part, auto scratch) {
      const float keep = static_cast<float>(1 - smoothing);
      int64_t target[kMaxCrossEntropyRows];
      float hit[kMaxCrossEntropyRows], row_scale[kMaxCrossEntropyRows];
      if (by_index) {
        read_targets(target, problem.indices, part.row, part.count, problem.ignore_index);
      }
      for (int64_t i = 0; i < part.count; ++i) {
        const bool weighted = by_index && weight != nullptr && target[i] != kIgnoredRow;
        hit[i] = !by_index ? 0 : weighted ? keep * weight[target[i]] : keep;
        row_scale[i] = by_row && grad_output != nullptr ? widened(grad_output[part.row + i])
                                                        : static_cast<float>(scale);
      }
      CrossEntropyRows<float> c;
      c.loss = row_loss == nullptr ? nullptr : row_loss + part.row;
      c.logits = scratch(0);
      c.dlogits = dlogits == nullptr ? nullptr : scratch(0);
      c.shape = part.packed();
      c.target = by_index ? target : nullptr;
      c.hit = hit;
      c.scale = row_scale;
      c.soft = !by_index || smoothing != 0;
      c.probabilities = by_index ? nullptr : scratch(1);
      c.weight = weight;
      c.keep = keep;
      c.floor = static_cast<float>(smoothing / static_cast<double>(classes));
      c.scratch = scratch(buffers);
      part.widen(convert, scratch(0), problem.logits);
      if (!by_index) part.widen(convert, scratch(1), problem.probabilities);
      kernel.rows(c);
      if (dlogits != nullptr) part.narrow(convert, dlogits, scratch(0));
    });
  }
  if (loss == nullptr) return;
  if (by_row) {
    convert.narrow(loss, row_loss, rows);
  } else {
    *loss = rounded(static_cast<float>(sum_all(context, row_loss, rows) / denominator));
  }
}

}  // namespace tilegrad::cpu
