// SPDX-License-Identifier: MIT
// What a plan records of clipping and optimisers.
#include "optim_steps.hpp"
#include "plan.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

double nanoseconds(const OptimTensors& tensors) { return static_cast<double>(tensors.elements()); }

// Writes the coefficient into every state of the update, so that clipping costs no pass.
void record_clip_scale(Plan& plan, py::handle grads, double max_norm, py::handle states) {
  auto tensors = plan.take_tensors("clip_grad_norm_", {.grads = grads});
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

template <class Options>
void record_step(Plan& plan, const char* op, const StepLists& lists, const Options& options,
                 const py::object& state) {
  auto tensors = plan.take_tensors(op, lists);
  const StepState* step = plan.take_state(state);
  plan.record<Floats::wide>(tensors->dtype(), nanoseconds(*tensors), [&](auto t) -> Plan::Call {
    plan.updates().claim(tensors->list<decltype(t)>(), options, step);
    plan.whole_step().update(tensors->list<decltype(t)>(), options, step);
    return [=](Context& context) {
      const auto& list = tensors->list<decltype(t)>();
      optimizer_step(context, list.data(), std::ssize(list), options, step);
    };
  });
}

}  // namespace

void bind_plan_updates(PlanClass& plan) {
  plan.def("clip_scale", &record_clip_scale, py::arg("grads"), py::arg("max_norm"),
           py::arg("states"));
  bind_steps<const py::object&, Plan&>(plan,
                                       [](auto&&... arguments) { record_step(arguments...); });
}

}  // namespace tilegrad::TILEGRAD_BACKEND
