// SPDX-License-Identifier: MIT
// The optimisers' steps as Python calls them: on the module at once, on a plan for later.
#pragma once

#include <utility>

#include "optim_tensors.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

template <class Options>
Options with_penalties(Options options, double weight_decay, double l1_decay, bool maximize) {
  options.weight_decay = weight_decay;
  options.l1_decay = l1_decay;
  options.maximize = maximize;
  return options;
}

// Defines the steps on `target`, a module or the class Self; they call
// step(self..., op, lists, options, state).
template <class State, class... Self, class Target, class Step>
void bind_steps(Target& target, Step step) {
  const auto none = py::none();
  target.def(
      "sgd_step",
      [step](Self... self, py::handle params, py::handle grads, py::handle momentum_buffers,
             double momentum, double dampening, bool nesterov, double weight_decay, double l1_decay,
             bool maximize, State state, py::handle rounded) {
        SgdOptions options;
        options.momentum = momentum;
        options.dampening = dampening;
        options.nesterov = nesterov;
        step(self..., "sgd_step",
             StepLists{
                 .params = params, .grads = grads, .first = momentum_buffers, .rounded = rounded},
             with_penalties(options, weight_decay, l1_decay, maximize), std::forward<State>(state));
      },
      py::arg("params"), py::arg("grads"), py::arg("momentum_buffers"), py::arg("momentum"),
      py::arg("dampening"), py::arg("nesterov"), py::arg("weight_decay"), py::arg("l1_decay"),
      py::arg("maximize"), py::arg("state"), py::arg("rounded") = none);
  target.def(
      "adam_step",
      [step](Self... self, py::handle params, py::handle grads, py::handle means,
             py::handle squares, py::handle max_squares, double beta1, double beta2, double eps,
             bool decoupled, double weight_decay, double l1_decay, bool maximize, State state,
             py::handle rounded) {
        AdamOptions options;
        options.beta1 = beta1;
        options.beta2 = beta2;
        options.eps = eps;
        options.decoupled = decoupled;
        options.amsgrad = !max_squares.is_none();
        step(self..., "adam_step", StepLists{params, grads, means, squares, max_squares, rounded},
             with_penalties(options, weight_decay, l1_decay, maximize), std::forward<State>(state));
      },
      py::arg("params"), py::arg("grads"), py::arg("means"), py::arg("squares"),
      py::arg("max_squares"), py::arg("beta1"), py::arg("beta2"), py::arg("eps"),
      py::arg("decoupled"), py::arg("weight_decay"), py::arg("l1_decay"), py::arg("maximize"),
      py::arg("state"), py::arg("rounded") = none);
  target.def(
      "rmsprop_step",
      [step](Self... self, py::handle params, py::handle grads, py::handle squares,
             py::handle momentum_buffers, py::handle means, double alpha, double eps,
             double momentum, double weight_decay, double l1_decay, bool maximize, State state,
             py::handle rounded) {
        RmspropOptions options;
        options.alpha = alpha;
        options.eps = eps;
        options.momentum = momentum;
        options.centered = !means.is_none();
        step(self..., "rmsprop_step",
             StepLists{params, grads, squares, momentum_buffers, means, rounded},
             with_penalties(options, weight_decay, l1_decay, maximize), std::forward<State>(state));
      },
      py::arg("params"), py::arg("grads"), py::arg("squares"), py::arg("momentum_buffers"),
      py::arg("means"), py::arg("alpha"), py::arg("eps"), py::arg("momentum"),
      py::arg("weight_decay"), py::arg("l1_decay"), py::arg("maximize"), py::arg("state"),
      py::arg("rounded") = none);
  target.def(
      "adagrad_step",
      [step](Self... self, py::handle params, py::handle grads, py::handle sums, double lr_decay,
             double eps, double weight_decay, double l1_decay, bool maximize, State state,
             py::handle rounded) {
        AdagradOptions options;
        options.lr_decay = lr_decay;
        options.eps = eps;
        step(self..., "adagrad_step",
             StepLists{.params = params, .grads = grads, .first = sums, .rounded = rounded},
             with_penalties(options, weight_decay, l1_decay, maximize), std::forward<State>(state));
      },
      py::arg("params"), py::arg("grads"), py::arg("sums"), py::arg("lr_decay"), py::arg("eps"),
      py::arg("weight_decay"), py::arg("l1_decay"), py::arg("maximize"), py::arg("state"),
      py::arg("rounded") = none);
}

}  // namespace tilegrad::TILEGRAD_BACKEND
