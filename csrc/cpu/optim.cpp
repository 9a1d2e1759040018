// SPDX-License-Identifier: MIT
// Optimiser steps, clipping: all tensors as one long vector, cut into tasks of kGrain elements that
// may begin and end inside a tensor. The kernels are in simd/.
#include "optim.hpp"

#include <algorithm>
#include <cmath>

#include "../optim_constants.hpp"
#include "parallel.hpp"

namespace tilegrad::cpu {
namespace {

constexpr int64_t kGrain = 16384;  // also the block of a norm's sums: part of its result

// Estimates of the serial time of an element.
constexpr double kNormNanoseconds = 0.1;
constexpr double kScaleNanoseconds = 0.15;

// Where each tensor ends in the long vector.
template <class T>
class Flat {
 public:
  Flat(Context& context, const OptimTensor<T>* tensors, int64_t count)
      : tensors_(tensors), count_(count), ends_(context.workspace->take<int64_t>(count)) {
    for (int64_t t = 0; t < count; ++t) {
      size_ += tensors[t].size;
      ends_[t] = size_;
    }
  }

  int64_t size() const { return size_; }
  int64_t tasks() const { return (size_ + kGrain - 1) / kGrain; }

  // f(tensor, begin, n) for the pieces that make up a task, in order.
  template <class F>
  void for_pieces(int64_t task, F&& f) const {
    int64_t position = task * kGrain;
    const int64_t end = std::min(position + kGrain, size_);
    const int64_t* at = std::upper_bound(ends_, ends_ + count_, position);
    for (; position < end; ++at) {
      const OptimTensor<T>& tensor = tensors_[at - ends_];
      const int64_t n = std::min(*at, end) - position;
      if (n > 0) f(tensor, position - (*at - tensor.size), n);
      position += n;
    }
  }

 private:
  const OptimTensor<T>* tensors_;
  int64_t count_;
  int64_t* ends_;
  int64_t size_ = 0;
};

double nanoseconds(const SgdOptions&) { return 0.3; }
double nanoseconds(const AdamOptions&) { return 0.8; }
double nanoseconds(const RmspropOptions&) { return 0.7; }
double nanoseconds(const AdagradOptions&) { return 0.6; }

}  // namespace

template <class T, class Options>
UpdateRule<T> update_rule(const Options& options, const StepState& state) {
  return {nanoseconds(options), constants_of<T>(options, state)};
}

template <class T, class Options>
void optimizer_step(Context& context, const OptimTensor<T>* tensors, int64_t count,
                    const Options& options, const StepState* state) {
  const UpdateRule<T> rule = update_rule<T>(options, *state);
  WorkspaceScope scope(context);
  const Flat<T> flat(context, tensors, count);
  const double time = static_cast<double>(flat.size()) * rule.nanoseconds;
  parallel_for(context, flat.tasks(), time, [&](int64_t task, int) {
    flat.for_pieces(task, [&](const OptimTensor<T>& tensor, int64_t begin, int64_t n) {
      rule(tensor, begin, n, tensor.grad + begin);
    });
  });
}

template <class T>
void clip_scale(Context& context, StepState* state, T* norm, const OptimTensor<T>* tensors,
                int64_t count, NormKind kind, double max_norm) {
  WorkspaceScope scope(context);
  const Flat<T> flat(context, tensors, count);
  const auto& kernel = kernels<OptimKernels<T>>();
  // NaN once seen stays: every comparison with it is false.
  const auto combine = [kind](double a, double b) {
    if (kind != NormKind::infinity) return a + b;
    return b > a || b != b ? b : a;
  };
  const auto part = kind == NormKind::one   ? kernel.sum
                    : kind == NormKind::two ? kernel.sum_squares
                                            : kernel.maximum;

  double* parts = context.workspace->take<double>(flat.tasks());
  const double nanoseconds = static_cast<double>(flat.size()) * kNormNanoseconds;
  parallel_for(context, flat.tasks(), nanoseconds, [&](int64_t task, int) {
    double total = 0;
    flat.for_pieces(task, [&](const OptimTensor<T>& tensor, int64_t begin, int64_t n) {
      total = combine(total, part(tensor.grad + begin, n));
    });
    parts[task] = total;
  });
  double total = 0;
  for (int64_t task = 0; task < flat.tasks(); ++task) total = combine(total, parts[task]);

  *norm = static_cast<T>(kind == NormKind::two ? std::sqrt(total) : total);
  // In T, and a reciprocal times max_norm, as torch evaluates max_norm / (norm + 1e-6).
  const T coefficient = T(1) / (*norm + static_cast<T>(1e-6)) * static_cast<T>(max_norm);
  state->grad_scale = static_cast<double>(coefficient > T(1) ? T(1) : coefficient);
}

template <class T>
void scale(Context& context, T* x, int64_t n, const StepState* state) {
  const auto factor = static_cast<T>(state->grad_scale);
  if (factor == T(1)) return;
  const auto& kernel = kernels<OptimKernels<T>>();
  parallel_ranges(
      context, n, kGrain, static_cast<double>(n) * kScaleNanoseconds,
      [&](int64_t begin, int64_t end, int) { kernel.scale(x + begin, end - begin, factor); });
}

#define TILEGRAD_INSTANTIATE_STEP(T, Options)                                            \
  template UpdateRule<T> update_rule(const Options&, const StepState&);                  \
  template void optimizer_step(Context&, const OptimTensor<T>*, int64_t, const Options&, \
                               const StepState*);
#define TILEGRAD_INSTANTIATE(T)                                                                \
  TILEGRAD_INSTANTIATE_STEP(T, SgdOptions)                                                     \
  TILEGRAD_INSTANTIATE_STEP(T, AdamOptions)                                                    \
  TILEGRAD_INSTANTIATE_STEP(T, RmspropOptions)                                                 \
  TILEGRAD_INSTANTIATE_STEP(T, AdagradOptions)                                                 \
  template void clip_scale(Context&, StepState*, T*, const OptimTensor<T>*, int64_t, NormKind, \
                           double);                                                            \
  template void scale(Context&, T*, int64_t, const StepState*);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE
#undef TILEGRAD_INSTANTIATE_STEP

}  // namespace tilegrad::cpu
