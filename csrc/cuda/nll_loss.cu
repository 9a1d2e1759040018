// SPDX-License-Identifier: MIT
// Math:        loss = -w_t x_t at the row's class t, dx_t = -g w_t, 0 elsewhere; a mean divides by
//              the sum of w_t.
// Shapes:      x (outer, classes, inner), targets and losses (rows), rows = outer * inner.
// Parallelism: a thread a row, grid-stride; sums as in row_sums.cuh.
// Memory:      x is a gather, one sector a row, and so is dx, which is cleared before (copy.cu).
//              Targets and losses are coalesced; a mean reads the targets twice.
#include "class_index.cuh"
#include "row_losses.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

template <class T>
struct NllArguments {
  T* dinput;  // or null
  const T* input;
  const T* weight;  // (classes) or null
  IndexView indices;
  int64_t classes, inner, ignore_index;
};

template <class T>
__global__ void __launch_bounds__(kRowThreads)
    nll_loss_kernel(NllArguments<T> a, RowOutput<T> out) {
  grid_dependency_wait();
  for (int64_t row = grid_thread(); row < out.rows; row += grid_threads()) {
    const int64_t target = class_at(a.indices, row, a.classes, a.ignore_index);
    if (target < 0) {
      out.put(row, target == kBadClass ? static_cast<T>(NAN) : T(0));
      continue;
    }
    const int64_t at = (row / a.inner * a.classes + target) * a.inner + row % a.inner;
    const T weight = a.weight == nullptr ? T(1) : a.weight[target];
    out.put(row, -weight * a.input[at]);
    if (a.dinput != nullptr) a.dinput[at] = -weight * out.factor(row);
  }
}

}  // namespace

template <class T>
void nll_loss(Context& context, T* loss, T* dinput, const T* grad_output,
              const CrossEntropy<T>& problem, int64_t* bad_row) {
  const auto [outer, classes, inner] = problem.shape;
  const int64_t rows = outer * inner;
  *bad_row = -1;
  WorkspaceScope scope(context);
  double* denominator = nullptr;
  if (problem.reduction == Reduction::mean) {
    denominator = context.workspace->take<double>(1);
    const ClassWeight<T> weight{problem.indices, problem.weight, classes, problem.ignore_index};
    sum_rows(context, weight, StoreSum{denominator}, rows);
  }
  if (dinput != nullptr) fill(context, dinput, rows * classes, 0);
  const RowOutput<T> out =
      row_output(context, loss, grad_output, rows, problem.reduction, denominator);
  launch_next(nll_loss_kernel<T>, blocks_for(rows, kRowThreads), kRowThreads, 0, context,
              NllArguments<T>{dinput, problem.logits, problem.weight, problem.indices, classes,
                              inner, problem.ignore_index},
              out);
  finish_rows(context, loss, out);
}

template void nll_loss(Context&, float*, float*, const float*, const CrossEntropy<float>&,
                       int64_t*);
template void nll_loss(Context&, double*, double*, const double*, const CrossEntropy<double>&,
                       int64_t*);

}  // namespace tilegrad::TILEGRAD_BACKEND
