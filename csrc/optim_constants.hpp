// SPDX-License-Identifier: MIT
// The constants of an optimiser's step from its options and StepState, once for all backends.
// Scalars are computed in double and rounded to T once, as torch does.
#pragma once

#include <cmath>

#include "ops.hpp"
#include "optim_rules.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

template <class T>
TILEGRAD_HOST_DEVICE inline GradientConstants<T> gradient_constants(const GradientOptions& options,
                                                                    const StepState& state) {
  return {static_cast<T>(options.maximize ? -state.grad_scale : state.grad_scale),
          static_cast<T>(options.l1_decay), static_cast<T>(options.weight_decay),
          options.l1_decay != 0, options.weight_decay != 0};
}

// The weight of a lerp from the nearer end: from the mean, or backwards from the gradient.
template <class T>
struct LerpEnd {
  T weight;
  bool from_mean;
};
template <class T>
TILEGRAD_HOST_DEVICE inline LerpEnd<T> lerp_end(double weight) {
  const auto rounded = static_cast<T>(weight);
  const bool from_mean = rounded < T(0.5);
  return {from_mean ? rounded : rounded - T(1), from_mean};
}

template <class T>
TILEGRAD_HOST_DEVICE inline SgdConstants<T> constants_of(const SgdOptions& options,
                                                         const StepState& state) {
  SgdConstants<T> c{};
  c.gradient = gradient_constants<T>(options, state);
  c.momentum = static_cast<T>(options.momentum);
  c.one_minus_dampening = static_cast<T>(1 - options.dampening);
  c.minus_learning_rate = static_cast<T>(-state.learning_rate);
  c.has_momentum = options.momentum != 0;
  c.first_step = state.step == 1;
  c.nesterov = options.nesterov;
  return c;
}

template <class T>
TILEGRAD_HOST_DEVICE inline AdamConstants<T> constants_of(const AdamOptions& options,
                                                          const StepState& state) {
  const auto step = static_cast<double>(state.step);
  const double correction1 = 1 - ::pow(options.beta1, step);
  const double correction2 = 1 - ::pow(options.beta2, step);
  const auto end = lerp_end<T>(1 - options.beta1);
  // Python's x ** 0.5 is pow, which may differ from sqrt in the last bit.
  const auto root = static_cast<T>(::pow(correction2, 0.5));
  AdamConstants<T> c{};
  c.gradient = gradient_constants<T>(options, state);
  c.gradient.has_weight_decay = options.weight_decay != 0 && !options.decoupled;
  c.data_factor =
      static_cast<T>(options.decoupled ? 1 - state.learning_rate * options.weight_decay : 1.0);
  c.lerp_weight = end.weight;
  c.from_mean = end.from_mean;
  c.beta2 = static_cast<T>(options.beta2);
  c.one_minus_beta2 = static_cast<T>(1 - options.beta2);
  c.eps = static_cast<T>(options.eps);
  c.minus_step_size = static_cast<T>(-(state.learning_rate / correction1));
  c.correction = {root, T(1) / root, root >= T(0x1p-20) && root <= T(1)};
  c.amsgrad = options.amsgrad;
  return c;
}

template <class T>
TILEGRAD_HOST_DEVICE inline RmspropConstants<T> constants_of(const RmspropOptions& options,
                                                             const StepState& state) {
  const auto end = lerp_end<T>(1 - options.alpha);
  RmspropConstants<T> c{};
  c.gradient = gradient_constants<T>(options, state);
  c.alpha = static_cast<T>(options.alpha);
  c.one_minus_alpha = static_cast<T>(1 - options.alpha);
  c.lerp_weight = end.weight;
  c.from_mean = end.from_mean;
  c.eps = static_cast<T>(options.eps);
  c.momentum = static_cast<T>(options.momentum);
  c.minus_learning_rate = static_cast<T>(-state.learning_rate);
  c.has_momentum = options.momentum != 0;
  c.centered = options.centered;
  return c;
}

template <class T>
TILEGRAD_HOST_DEVICE inline AdagradConstants<T> constants_of(const AdagradOptions& options,
                                                             const StepState& state) {
  const auto done = static_cast<double>(state.step - 1);
  AdagradConstants<T> c{};
  c.gradient = gradient_constants<T>(options, state);
  c.eps = static_cast<T>(options.eps);
  c.minus_learning_rate = static_cast<T>(-(state.learning_rate / (1 + done * options.lr_decay)));
  return c;
}

}  // namespace tilegrad::TILEGRAD_BACKEND
