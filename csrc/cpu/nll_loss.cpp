// SPDX-License-Identifier: MIT
// nll_loss: the targets are checked and the mean's denominator is added up, then each row's element
// at its target is read, and the gradient is cleared but for that element.
//
// Memory: an element a row is read; with a gradient every element is written once.
#include <cstring>

#include "../ops.hpp"
#include "class_targets.hpp"
#include "parallel.hpp"
#include "row_results.hpp"

namespace tilegrad::cpu {
namespace {

constexpr int64_t kTaskBytes = 1 << 17;      // cleared by a task
constexpr double kNanosecondsARow = 4;       // a cache miss, several under way
constexpr double kNanosecondsACleared = .1;  // element

template <class T>
void clear(Context& context, T* x, int64_t n) {
  constexpr int64_t kGrain = kTaskBytes / sizeof(T);
  const double time = static_cast<double>(n) * kNanosecondsACleared;
  parallel_ranges(context, n, kGrain, time, [&](int64_t begin, int64_t end, int) {
    std::memset(x + begin, 0, static_cast<size_t>(end - begin) * sizeof(T));
  });
}

}  // namespace

template <class T>
void nll_loss(Context& context, T* loss, T* dinput, const T* grad_output,
              const CrossEntropy<T>& problem, int64_t* bad_row) {
  const auto [outer, classes, inner] = problem.shape;
  const int64_t rows = outer * inner;
  const TargetSum sum =
      check_targets(context, problem.indices, rows, classes, problem.ignore_index, problem.weight);
  *bad_row = sum.bad_row;
  if (sum.bad_row >= 0) return;

  WorkspaceScope scope(context);
  const RowResults<T> results(context, loss, grad_output, rows, problem.reduction, sum.weight);
  // Rows that lie side by side are cleared by the task that sets their elements.
  const bool clears = dinput != nullptr && inner == 1;
  if (dinput != nullptr && !clears) clear(context, dinput, rows * classes);
  const int64_t row_bytes = (clears ? classes : 1) * static_cast<int64_t>(sizeof(T));
  const int64_t grain = std::max<int64_t>(1, kTaskBytes / std::max<int64_t>(row_bytes, 16));
  const double time =
      static_cast<double>(rows) *
      (kNanosecondsARow + (clears ? static_cast<double>(classes) * kNanosecondsACleared : 0));
  const auto all_rows = [&, classes = classes, inner = inner](const auto* targets) {
    parallel_ranges(context, rows, grain, time, [&](int64_t begin, int64_t end, int) {
      if (clears) {
        std::memset(dinput + begin * classes, 0, static_cast<size_t>((end - begin) * row_bytes));
      }
      int64_t column = begin % inner;
      int64_t base = begin / inner * classes * inner + column;  // the row's class 0
      for (int64_t row = begin; row < end; ++row) {
        const int64_t target = to_class(targets[row]);
        const int64_t at = base + target * inner;
        ++base;
        if (++column == inner) {
          column = 0;
          base += (classes - 1) * inner;
        }
        if (target == problem.ignore_index) {
          results.put(row, 0);
          continue;
        }
        const T weight = problem.weight == nullptr ? T(1) : problem.weight[target];
        results.put(row, -weight * problem.logits[at]);
        if (dinput != nullptr) dinput[at] = -weight * static_cast<T>(results.factor(row));
      }
    });
  };
  visit(problem.indices, all_rows);
  results.finish();
}

template void nll_loss(Context&, float*, float*, const float*, const CrossEntropy<float>&,
                       int64_t*);
template void nll_loss(Context&, double*, double*, const double*, const CrossEntropy<double>&,
                       int64_t*);

}  // namespace tilegrad::cpu
