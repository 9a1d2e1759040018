// SPDX-License-Identifier: MIT
// Optimiser steps, clipping: all tensors as one long vector, cut into tasks of kGrain elements that
// may begin and end inside a tensor. The kernels are in simd/.
#include "simd/optim.hpp"

#include <algorithm>
#include <cmath>

#include "../ops.hpp"
#include "isa.hpp"
#include "parallel.hpp"

namespace tilegrad::cpu {
namespace {

constexpr int64_t kGrain = 16384;  // also the block of a norm's sums: part of its result

// Estimates of the serial time of an element.
constexpr double kSgdNanoseconds = 0.3;
constexpr double kAdamNanoseconds = 0.8;
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

template <class T>
T* at(T* p, int64_t offset) {
  return p == nullptr ? nullptr : p + offset;
}

double gradient_factor(const StepState& state, bool maximize) {
  return maximize ? -state.grad_scale : state.grad_scale;
}

template <class T>
AdamConstants<T> adam_constants(const AdamOptions& options, const StepState& state) {
  const double lr = state.learning_rate;
  const auto step = static_cast<double>(state.step);
  const double correction1 = 1 - std::pow(options.beta1, step);
  const double correction2 = 1 - std::pow(options.beta2, step);
  const bool decay = options.weight_decay != 0;
  return {
      .gradient_factor = static_cast<T>(gradient_factor(state, options.maximize)),
      .data_factor =
          static_cast<T>(decay && options.decoupled ? 1 - lr * options.weight_decay : 1.0),
      .weight_decay = static_cast<T>(options.weight_decay),
      .one_minus_beta1 = static_cast<T>(1 - options.beta1),
      .beta2 = static_cast<T>(options.beta2),
      .one_minus_beta2 = static_cast<T>(1 - options.beta2),
      // Python's x ** 0.5 is pow, which may differ from sqrt in the last bit.
      .sqrt_correction2 = static_cast<T>(std::pow(correction2, 0.5)),
      .eps = static_cast<T>(options.eps),
      .minus_step_size = static_cast<T>(-(lr / correction1)),
      .has_weight_decay = decay && !options.decoupled,
      .amsgrad = options.amsgrad,
  };
}

}  // namespace

template <class T>
void sgd_step(Context& context, const OptimTensor<T>* tensors, int64_t count,
              const SgdOptions& options, const StepState* state) {
  WorkspaceScope scope(context);
  const Flat<T> flat(context, tensors, count);
  const auto& kernel = kernels<OptimKernels<T>>();
  [[maybe_unused]] const auto& masters = kernels<MasterKernels>();
  const SgdConstants<T> constants = {
      .gradient_factor = static_cast<T>(gradient_factor(*state, options.maximize)),
      .weight_decay = static_cast<T>(options.weight_decay),
      .momentum = static_cast<T>(options.momentum),
      .one_minus_dampening = static_cast<T>(1 - options.dampening),
      .minus_learning_rate = static_cast<T>(-state->learning_rate),
      .has_weight_decay = options.weight_decay != 0,
      .has_momentum = options.momentum != 0,
      .first_step = state->step == 1,
      .nesterov = options.nesterov,
  };
  const double nanoseconds = static_cast<double>(flat.size()) * kSgdNanoseconds;
  parallel_for(context, flat.tasks(), nanoseconds, [&](int64_t task, int) {
    flat.for_pieces(task, [&](const OptimTensor<T>& tensor, int64_t begin, int64_t n) {
      if constexpr (sizeof(T) == sizeof(float)) {
        if (tensor.rounded != nullptr) {
          return masters.sgd(tensor.data + begin, tensor.rounded + begin, tensor.grad + begin,
                             at(tensor.first, begin), n, constants);
        }
      }
      kernel.sgd(tensor.data + begin, tensor.grad + begin, at(tensor.first, begin), n, constants);
    });
  });
}

template <class T>
void adam_step(Context& context, const OptimTensor<T>* tensors, int64_t count,
               const AdamOptions& options, const StepState* state) {
  WorkspaceScope scope(context);
  const Flat<T> flat(context, tensors, count);
  const auto& kernel = kernels<OptimKernels<T>>();
  [[maybe_unused]] const auto& masters = kernels<MasterKernels>();
  const AdamConstants<T> constants = adam_constants<T>(options, *state);
  const double nanoseconds = static_cast<double>(flat.size()) * kAdamNanoseconds;
  parallel_for(context, flat.tasks(), nanoseconds, [&](int64_t task, int) {
    flat.for_pieces(task, [&](const OptimTensor<T>& tensor, int64_t begin, int64_t n) {
      if constexpr (sizeof(T) == sizeof(float)) {
        if (tensor.rounded != nullptr) {
          return masters.adam(tensor.data + begin, tensor.rounded + begin, tensor.grad + begin,
                              tensor.first + begin, tensor.second + begin, at(tensor.third, begin),
                              n, constants);
        }
      }
      kernel.adam(tensor.data + begin, tensor.grad + begin, tensor.first + begin,
                  tensor.second + begin, at(tensor.third, begin), n, constants);
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

#define TILEGRAD_INSTANTIATE(T)                                                                \
  template void sgd_step(Context&, const OptimTensor<T>*, int64_t, const SgdOptions&,          \
                         const StepState*);                                                    \
  template void adam_step(Context&, const OptimTensor<T>*, int64_t, const AdamOptions&,        \
                          const StepState*);                                                   \
  template void clip_scale(Context&, StepState*, T*, const OptimTensor<T>*, int64_t, NormKind, \
                           double);                                                            \
  template void scale(Context&, T*, int64_t, const StepState*);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::cpu
