// SPDX-License-Identifier: MIT
// The margin losses of classes: a task has whole rows, each of which goes through a kernel of
// simd/margin_losses.cpp.
#include "simd/margin_losses.hpp"

#include <optional>

#include "../ops.hpp"
#include "class_targets.hpp"
#include "isa.hpp"
#include "parallel.hpp"
#include "row_results.hpp"

namespace tilegrad::cpu {
namespace {

constexpr double kNanosecondsAnElement = 0.5;
constexpr double kNanosecondsALogarithm = 3;
constexpr double kNanosecondsARow = 10;

double time_of(RowShape shape, double an_element) {
  return static_cast<double>(shape.rows) *
         (static_cast<double>(shape.size) * an_element + kNanosecondsARow);
}

template <class P>
P* at(P* p, int64_t i) {
  return p == nullptr ? nullptr : p + i;
}

}  // namespace

template <class T>
void multi_margin_loss(Context& context, T* loss, T* dinput, const T* grad_output, const T* input,
                       IndexView target, const T* weight, RowShape shape, MultiMargin options,
                       Reduction reduction, int64_t* bad_row) {
  const auto [rows, size] = shape;
  const T* const unweighted = nullptr;
  *bad_row = check_targets(context, target, rows, size, std::nullopt, unweighted).bad_row;
  if (*bad_row >= 0) return;
  const auto& kernel = kernels<MarginKernels<T>>();
  WorkspaceScope scope(context);
  const RowResults<T> results(context, loss, grad_output, rows, reduction,
                              static_cast<double>(rows));
  const auto one_row = [&, n = size](int64_t row, int64_t t) {
    const double share = (weight == nullptr ? T(1) : weight[t]) / static_cast<double>(n);
    const T factor = static_cast<T>(results.factor(row) * share);
    const double sum = kernel.multi_margin(at(dinput, row * n), input + row * n, n, t,
                                           static_cast<T>(options.margin), options.squared, factor);
    results.put(row, sum * share);
  };
  visit(target, [&](const auto* indices) {
    parallel_ranges(context, rows, rows_of_a_task(size), time_of(shape, kNanosecondsAnElement),
                    [&](int64_t begin, int64_t end, int) {
                      for (int64_t row = begin; row < end; ++row) {
                        one_row(row, to_class(indices[row]));
                      }
                    });
  });
  results.finish();
}

template <class T>
void multilabel_margin_loss(Context& context, T* loss, T* dinput, const T* grad_output,
                            const T* input, IndexView target, RowShape shape, Reduction reduction,
                            int64_t* bad_row) {
  constexpr int64_t kEnd = -1;  // of a list
  static_assert(kEnd == kIgnoredRow);
  const auto [rows, size] = shape;
  const T* const unweighted = nullptr;
  *bad_row = check_targets(context, target, rows * size, size, kEnd, unweighted).bad_row;
  if (*bad_row >= 0) return;
  const auto& kernel = kernels<MarginKernels<T>>();
  WorkspaceScope scope(context);
  const RowResults<T> results(context, loss, grad_output, rows, reduction,
                              static_cast<double>(rows));
  constexpr int64_t kLine = 64 / sizeof(T);  // threads keep apart
  const int threads = thread_limit(context);
  int64_t* const lists = context.workspace->take<int64_t>(threads * (size + kLine));
  T* const rests = context.workspace->take<T>(threads * (size + kLine));
  // A list is often shorter than the row.
  const double time = 4 * time_of(shape, kNanosecondsAnElement);
  parallel_ranges(context, rows, rows_of_a_task(size), time,
                  [&, n = size](int64_t begin, int64_t end, int thread) {
                    int64_t* const listed = lists + thread * (n + kLine);
                    T* const rest = rests + thread * (n + kLine);
                    for (int64_t row = begin; row < end; ++row) {
                      read_targets(listed, target, row * n, n, kEnd);
                      const int64_t count = std::find(listed, listed + n, kEnd) - listed;
                      const T factor = static_cast<T>(results.factor(row) / static_cast<double>(n));
                      const double sum = kernel.multilabel_margin(
                          at(dinput, row * n), rest, input + row * n, n, listed, count, factor);
                      results.put(row, sum / static_cast<double>(n));
                    }
                  });
  results.finish();
}

template <class T>
void multilabel_soft_margin_loss(Context& context, T* loss, T* dinput, T* dtarget,
                                 const T* grad_output, const T* input, const T* target,
                                 const T* weight, int64_t weight_stride, RowShape shape,
                                 Reduction reduction) {
  const auto [rows, size] = shape;
  const auto& kernel = kernels<MarginKernels<T>>();
  WorkspaceScope scope(context);
  const RowResults<T> results(context, loss, grad_output, rows, reduction,
                              static_cast<double>(rows));
  parallel_ranges(context, rows, rows_of_a_task(size), time_of(shape, kNanosecondsALogarithm),
                  [&, n = size](int64_t begin, int64_t end, int) {
                    const auto divisor = static_cast<double>(n);
                    for (int64_t row = begin; row < end; ++row) {
                      const int64_t i = row * n;
                      const double sum =
                          kernel.label_cross_entropy(at(dinput, i), at(dtarget, i), input + i,
                                                     target + i, at(weight, row * weight_stride), n,
                                                     static_cast<T>(results.factor(row) / divisor));
                      results.put(row, sum / divisor);
                    }
                  });
  results.finish();
}

#define TILEGRAD_INSTANTIATE(T)                                                                   \
  template void multi_margin_loss(Context&, T*, T*, const T*, const T*, IndexView, const T*,      \
                                  RowShape, MultiMargin, Reduction, int64_t*);                    \
  template void multilabel_margin_loss(Context&, T*, T*, const T*, const T*, IndexView, RowShape, \
                                       Reduction, int64_t*);                                      \
  template void multilabel_soft_margin_loss(Context&, T*, T*, T*, const T*, const T*, const T*,   \
                                            const T*, int64_t, RowShape, Reduction);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::cpu
