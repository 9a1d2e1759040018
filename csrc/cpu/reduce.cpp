// SPDX-License-Identifier: MIT
// sum_axis: cuts (outer, axis, inner) into tasks. Where outputs are few and the axis is long, the
// axis is cut too; the pieces' sums lie in workspace and are added in order. The cuts depend on the
// shape only.
#include "reduce.hpp"

#include <algorithm>

#include "../ops.hpp"
#include "isa.hpp"
#include "parallel.hpp"
#include "simd/reduce.hpp"

namespace tilegrad::cpu {
namespace {

constexpr int64_t kColumns = 64;          // outputs of a task
constexpr int64_t kTaskElements = 16384;  // read by a task, about
constexpr int64_t kFewTasks = 64;         // with fewer tasks than this a long axis is cut
constexpr double kNanosecondsAnElement = 0.15;

// A piece of work: outputs [0, count) of which each adds `length` elements.
template <class T>
void sum_piece(const SumKernels<T>& kernel, double* totals, const T* x, int64_t count,
               int64_t length, int64_t axis, int64_t inner) {
  if (inner == 1) {
    kernel.rows(totals, x, count, length, axis);
  } else {
    kernel.columns(totals, x, length, count, inner);
  }
}

template <class T>
void put(T* y, const double* totals, int64_t count, bool accumulate) {
  for (int64_t i = 0; i < count; ++i) {
    y[i] = accumulate ? y[i] + static_cast<T>(totals[i]) : static_cast<T>(totals[i]);
  }
}

}  // namespace

template <class T>
double sum_all(Context& context, const T* x, int64_t n) {
  const auto& kernel = kernels<SumKernels<T>>();
  double total = 0;
  if (n <= kTaskElements) {
    kernel.rows(&total, x, 1, n, n);
    return total;
  }
  WorkspaceScope scope(context);
  const int64_t pieces = (n + kTaskElements - 1) / kTaskElements;
  double* sums = context.workspace->take<double>(pieces);
  parallel_for(context, pieces, static_cast<double>(n) * kNanosecondsAnElement,
               [&](int64_t piece, int) {
                 const int64_t begin = piece * kTaskElements;
                 kernel.rows(sums + piece, x + begin, 1, std::min(kTaskElements, n - begin), n);
               });
  for (int64_t piece = 0; piece < pieces; ++piece) total += sums[piece];
  return total;
}

template <class T>
void sum_axis(Context& context, T* y, const T* x, int64_t outer, int64_t axis, int64_t inner,
              bool accumulate) {
  const int64_t outputs = outer * inner;
  if (outputs == 0) return;
  const auto& kernel = kernels<SumKernels<T>>();
  // A group is up to kColumns neighbouring outputs: rows where inner is 1, else columns.
  const int64_t line = inner == 1 ? outer : inner;
  const int64_t width =
      inner == 1 ? std::clamp<int64_t>(kTaskElements / std::max<int64_t>(axis, 1), 1, kColumns)
                 : kColumns;
  const int64_t groups_a_line = (line + width - 1) / width;
  const int64_t groups = groups_a_line * (outputs / line);
  const int64_t fewest_rows = std::max<int64_t>(1, kTaskElements / std::min(inner, width));
  const int64_t pieces =
      groups >= kFewTasks ? 1 : std::clamp<int64_t>(axis / fewest_rows, 1, kFewTasks);
  const int64_t length = (axis + pieces - 1) / pieces;
  const double time =
      static_cast<double>(outputs) * (static_cast<double>(axis) + 8) * kNanosecondsAnElement;

  WorkspaceScope scope(context);
  double* sums = pieces > 1 ? context.workspace->take<double>(pieces * outputs) : nullptr;
  parallel_for(context, groups * pieces, time, [&](int64_t task, int) {
    const int64_t group = task / pieces;
    const int64_t piece = task % pieces;
    const int64_t first = group % groups_a_line * width;
    const int64_t output = group / groups_a_line * line + first;
    const int64_t count = std::min(width, line - first);
    const int64_t begin = std::min(axis, piece * length);
    const T* from =
        x + (inner == 1 ? output * axis + begin : (output / inner * axis + begin) * inner + first);
    double totals[kColumns];
    double* target = sums == nullptr ? totals : sums + piece * outputs + output;
    sum_piece(kernel, target, from, count, std::min(length, axis - begin), axis, inner);
    if (sums == nullptr) put(y + output, totals, count, accumulate);
  });
  if (sums == nullptr) return;
  for (int64_t piece = 1; piece < pieces; ++piece) {
    for (int64_t i = 0; i < outputs; ++i) sums[i] += sums[piece * outputs + i];
  }
  put(y, sums, outputs, accumulate);
}

template double sum_all(Context&, const float*, int64_t);
template double sum_all(Context&, const double*, int64_t);
template void sum_axis(Context&, float*, const float*, int64_t, int64_t, int64_t, bool);
template void sum_axis(Context&, double*, const double*, int64_t, int64_t, int64_t, bool);

}  // namespace tilegrad::cpu
