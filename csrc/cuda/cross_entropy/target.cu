// SPDX-License-Identifier: MIT
// Math:        dtarget[o,c,i] = -(1 - e) w_c logp[o,c,i] g[o,i], e the label smoothing.
// Shapes:      (outer, classes, inner); g is one number but for reduction none.
// Parallelism: log_softmax, then an element a thread, grid-stride.
// Memory:      coalesced; logp (float for the 16-bit types) is written and read once more.
#include "../../ops.hpp"
#include "../launch.cuh"
#include "../vector_io.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kThreads = 256;

template <class T>
struct TargetArguments {
  T* dtarget;
  const Accumulate<T>* logp;
  const T* weight;
  const T* grad_output;
  ClassShape shape;
  double scale;
  bool by_row;
};

template <class T>
__global__ void __launch_bounds__(kThreads) cross_entropy_target_kernel(TargetArguments<T> a) {
  grid_dependency_wait();
  using A = Accumulate<T>;
  const int64_t line = a.shape.classes * a.shape.inner;
  const int64_t n = a.shape.outer * line;
  const bool has_gradient = a.grad_output != nullptr;
  const double upstream =
      has_gradient && !a.by_row ? static_cast<double>(widen(*a.grad_output)) : 1.0;
  const A scale = static_cast<A>(a.scale * upstream);
  for (int64_t i = grid_thread(); i < n; i += grid_threads()) {
    A factor = scale;
    if (a.weight != nullptr) factor *= widen(a.weight[i % line / a.shape.inner]);
    if (has_gradient && a.by_row) {
      factor *= widen(a.grad_output[i / line * a.shape.inner + i % a.shape.inner]);
    }
    a.dtarget[i] = narrow<T>(a.logp[i] * factor);
  }
}

}  // namespace

template <class T>
void cross_entropy_target_backward(Context& context, T* dtarget, const T* grad_output,
                                   const CrossEntropy<T>& problem) {
  using A = Accumulate<T>;
  const ClassShape shape = problem.shape;
  const int64_t rows = shape.outer * shape.inner, n = rows * shape.classes;
  WorkspaceScope scope(context);
  A* logp = nullptr;
  const A* logits = nullptr;
  if constexpr (sizeof(T) == 2) {
    logp = context.workspace->take<A>(n);
    convert(context, logp, problem.logits, n);
    logits = logp;
  } else {
    logp = dtarget;
    logits = problem.logits;
  }
  softmax(context, logp, logits, shape, true);
  const double divisor = problem.reduction == Reduction::mean ? static_cast<double>(rows) : 1;
  launch_next(cross_entropy_target_kernel<T>, blocks_for(n, kThreads), kThreads, 0, context,
              TargetArguments<T>{dtarget, logp, problem.weight, grad_output, shape,
                                 -(1 - problem.label_smoothing) / divisor,
                                 problem.reduction == Reduction::none});
}

#define TILEGRAD_INSTANTIATE(T) \
  template void cross_entropy_target_backward(Context&, T*, const T*, const CrossEntropy<T>&);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
TILEGRAD_INSTANTIATE(bfloat16)
TILEGRAD_INSTANTIATE(float16)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::TILEGRAD_BACKEND
