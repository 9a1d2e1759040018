// SPDX-License-Identifier: MIT
// What a plan records of clipping and optimisers.
#include "plan.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

double nanoseconds(const OptimTensors& tensors) { return static_cast<double>(tensors.elements()); }

// Writes the coefficient into every state of the update, so that clipping costs no pass.
void record_clip_scale(Plan& plan, py::handle grads, double max_norm, py::handle states) {
  auto tensors = plan.take_tensors("clip_grad_norm_", py::none(), grads);
  std::vector<StepState*> targets;
  for (py::handle state : states) {
    targets.push_back(plan.take_state(py::reinterpret_borrow<py::object>(state)));
  }
  plan.updates().withdraw();
  check(!targets.empty(), "clip_grad_norm_: there is no update to scale; got {} states", 0);
  plan.record<Floats::wide>(tensors->dtype(), nanoseconds(*tensors), [&](auto t) -> Plan::Call {
    using T = decltype(t);
    return [=](Context& context) {
      const auto& list = tensors->list<T>();
      T* const norm = context.workspace->take<T>(1);
      StepState* const first = targets.front();
      tilegrad::TILEGRAD_BACKEND::clip_scale(context, first, norm, list.data(), std::ssize(list),
                                             NormKind::two, max_norm);
      for (StepState* state : targets) {
        if (state == first) continue;
        copy_bytes(context, &state->grad_scale, &first->grad_scale, sizeof(first->grad_scale));
      }
    };
  });
}

void record_sgd_step(Plan& plan, py::handle params, py::handle grads, py::handle buffers,
                     double momentum, double dampening, double weight_decay, bool nesterov,
                     bool maximize, py::object state, py::handle rounded) {
  auto tensors =
      plan.take_tensors("sgd_step", params, grads, buffers, py::none(), py::none(), rounded);
  const SgdOptions options{momentum, dampening, weight_decay, nesterov, maximize};
  const StepState* step = plan.take_state(state);
  plan.record<Floats::wide>(tensors->dtype(), nanoseconds(*tensors), [&](auto t) -> Plan::Call {
    plan.updates().claim(tensors->list<decltype(t)>(), options, step);
    return [=](Context& context) {
      const auto& list = tensors->list<decltype(t)>();
      tilegrad::TILEGRAD_BACKEND::sgd_step(context, list.data(), std::ssize(list), options, step);
    };
  });
}

void record_adam_step(Plan& plan, py::handle params, py::handle grads, py::handle means,
                      py::handle squares, py::handle max_squares, double beta1, double beta2,
                      double eps, double weight_decay, bool decoupled, bool maximize,
                      py::object state, py::handle rounded) {
  auto tensors =
      plan.take_tensors("adam_step", params, grads, means, squares, max_squares, rounded);
  const AdamOptions options{beta1,   beta2, eps, weight_decay, decoupled, !max_squares.is_none(),
                            maximize};
  const StepState* step = plan.take_state(state);
  plan.record<Floats::wide>(tensors->dtype(), nanoseconds(*tensors), [&](auto t) -> Plan::Call {
    plan.updates().claim(tensors->list<decltype(t)>(), options, step);
    return [=](Context& context) {
      const auto& list = tensors->list<decltype(t)>();
      tilegrad::TILEGRAD_BACKEND::adam_step(context, list.data(), std::ssize(list), options, step);
    };
  });
}

}  // namespace

void bind_plan_updates(PlanClass& plan) {
  plan.def("clip_scale", &record_clip_scale, py::arg("grads"), py::arg("max_norm"),
           py::arg("states"))
      .def("sgd_step", &record_sgd_step, py::arg("params"), py::arg("grads"),
           py::arg("momentum_buffers"), py::arg("momentum"), py::arg("dampening"),
           py::arg("weight_decay"), py::arg("nesterov"), py::arg("maximize"), py::arg("state"),
           py::arg("rounded") = py::none())
      .def("adam_step", &record_adam_step, py::arg("params"), py::arg("grads"), py::arg("means"),
           py::arg("squares"), py::arg("max_squares"), py::arg("beta1"), py::arg("beta2"),
           py::arg("eps"), py::arg("weight_decay"), py::arg("decoupled"), py::arg("maximize"),
           py::arg("state"), py::arg("rounded") = py::none());
}

}  // namespace tilegrad::TILEGRAD_BACKEND
