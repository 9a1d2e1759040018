// SPDX-License-Identifier: MIT
// Elementwise losses: cuts the run into blocks of kBlock elements, whose sums are added in order.
#include "simd/losses.hpp"

#include <algorithm>
#include <limits>

#include "isa.hpp"
#include "parallel.hpp"
#include "reduce.hpp"

namespace tilegrad::cpu {
namespace {

constexpr int64_t kBlock = 8192;  // elements a task

// Bound by memory, or by logarithms: in vectors, or of double from libm.
template <class T>
double nanoseconds(const ElementwiseLoss<T>& problem) {
  const LossKind kind = problem.function.kind;
  const bool algebraic = kind == LossKind::mse || kind == LossKind::l1 ||
                         kind == LossKind::smooth_l1 || kind == LossKind::huber ||
                         kind == LossKind::margin_ranking || kind == LossKind::hinge_embedding;
  return (algebraic ? 0.3 : sizeof(T) == sizeof(float) ? 1 : 10) * static_cast<double>(problem.n);
}

// The first of n elements outside the range, or -1.
template <class T>
int64_t first_outside(Context& context, const T* x, int64_t n, Range<T> range) {
  const auto& kernel = kernels<LossKernels<T>>();
  const int64_t blocks = (n + kBlock - 1) / kBlock;
  WorkspaceScope scope(context);
  bool* inside = context.workspace->take<bool>(blocks);
  parallel_for(context, blocks, 0.05 * static_cast<double>(n), [&](int64_t block, int) {
    const int64_t i = block * kBlock;
    inside[block] = kernel.inside(x + i, std::min(kBlock, n - i), range);
  });
  const int64_t block = std::find(inside, inside + blocks, false) - inside;
  if (block == blocks) return -1;
  for (int64_t i = block * kBlock;; ++i) {
    if (!kernel.inside(x + i, 1, range)) return i;
  }
}

template <class T>
int64_t first_bad(Context& context, const ElementwiseLoss<T>& problem) {
  if (problem.function.kind == LossKind::gaussian_nll) {
    constexpr T kMost = std::numeric_limits<T>::infinity();
    return first_outside(context, problem.c, problem.n, {0, kMost, true});
  }
  if (problem.function.kind != LossKind::binary_cross_entropy) return -1;
  constexpr Range<T> kShare = {0, 1, false};
  const int64_t bad = first_outside(context, problem.a, problem.n, kShare);
  return bad >= 0 ? bad : first_outside(context, problem.b, problem.n, kShare);
}

}  // namespace

template <class T>
void elementwise_loss(Context& context, T* loss, T* const (&gradients)[3], const T* grad_output,
                      const ElementwiseLoss<T>& problem, int64_t* bad) {
  const auto& kernel = kernels<LossKernels<T>>();
  *bad = loss == nullptr ? -1 : first_bad(context, problem);
  if (*bad >= 0) return;
  const int64_t n = problem.n;
  const bool one_number = problem.reduction != Reduction::none;
  double divisor = 1;
  if (problem.reduction == Reduction::mean) {
    divisor = problem.divide_by_weight ? sum_all(context, problem.weight, n) : problem.divisor;
  }
  double scale = 1 / divisor;
  if (one_number && grad_output != nullptr) scale = *grad_output / divisor;

  const int64_t blocks = (n + kBlock - 1) / kBlock;
  WorkspaceScope scope(context);
  double* sums = context.workspace->take<double>(blocks);
  const auto at = [](auto* p, int64_t i) { return p == nullptr ? nullptr : p + i; };
  parallel_for(context, blocks, nanoseconds(problem), [&](int64_t block, int) {
    const int64_t i = block * kBlock;
    sums[block] = kernel.run(problem.function,
                             {one_number ? nullptr : at(loss, i),
                              {at(gradients[0], i), at(gradients[1], i), at(gradients[2], i)},
                              one_number ? nullptr : at(grad_output, i),
                              static_cast<T>(scale),
                              problem.a + i,
                              problem.b + i,
                              at(problem.c, i),
                              at(problem.weight, i),
                              std::min(kBlock, n - i),
                              one_number && loss != nullptr});
  });
  if (!one_number || loss == nullptr) return;
  double total = 0;
  for (int64_t block = 0; block < blocks; ++block) total += sums[block];
  *loss = static_cast<T>(total / divisor);
}

template void elementwise_loss(Context&, float*, float* const (&)[3], const float*,
                               const ElementwiseLoss<float>&, int64_t*);
template void elementwise_loss(Context&, double*, double* const (&)[3], const double*,
                               const ElementwiseLoss<double>&, int64_t*);

}  // namespace tilegrad::cpu
