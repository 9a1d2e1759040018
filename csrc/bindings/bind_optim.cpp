// SPDX-License-Identifier: MIT
#include <cmath>

#include "families.hpp"
#include "new_object.hpp"
#include "optim_steps.hpp"
#include "step_buffer.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr double kNanosecondsAnElement = 1;

NormKind parse_norm(double norm_type, const char* op) {
  if (norm_type == 2) return NormKind::two;
  if (norm_type == 1) return NormKind::one;
  check(std::isinf(norm_type) && norm_type > 0, "{}: norm_type must be 1, 2 or infinity; got {}",
        op, norm_type);
  return NormKind::infinity;
}

template <class V>
void field(py::class_<StepBuffer>& state, const char* name, V StepState::* member) {
  state.def_property(
      name, [member](StepBuffer& self) { return self.get(member); },
      [member](StepBuffer& self, V value) { self.set(member, value); });
}

// Brings what Python set to where the kernels read it, and says where that is.
StepState* current(Context& context, StepBuffer& state) {
  state.upload(context);
  return state.memory();
}

}  // namespace

void bind_optim(py::module_& m) {
  py::class_<StepBuffer> state(m, "StepState", py::module_local());
  define_constructor(state);
  field(state, "learning_rate", &StepState::learning_rate);
  field(state, "grad_scale", &StepState::grad_scale);
  field(state, "step", &StepState::step);
  field(state, "seed", &StepState::seed);
  field(state, "offset", &StepState::offset);

  bind_steps<StepBuffer&>(
      m, [](const char* op, const StepLists& lists, const auto& options, StepBuffer& state) {
        CallContext context;
        OptimTensors tensors(op, lists);
        const StepState* where = current(*context, state);
        with_float(tensors.dtype(), [&](auto t) {
          const auto& list = tensors.list<decltype(t)>();
          run(tensors.elements() * kNanosecondsAnElement,
              [&] { optimizer_step(*context, list.data(), std::ssize(list), options, where); });
        });
      });
  m.def(
      "clip_scale",
      [](py::handle grads, py::handle most, py::handle norm_type, StepBuffer& state) {
        constexpr const char* kOp = "clip_grad_norm_";
        const double max_norm = parse_number(most, kOp, "max_norm");
        check(max_norm >= 0, "{}: max_norm must be at least 0; got {}", kOp, max_norm);
        const NormKind kind = parse_norm(parse_number(norm_type, kOp, "norm_type"), kOp);
        CallContext context;
        OptimTensors tensors(kOp, {.grads = grads});
        const Tensor norm = empty({}, tensors.dtype(), kOp);
        StepState* where = current(*context, state);
        with_float(tensors.dtype(), [&](auto t) {
          using T = decltype(t);
          const auto& list = tensors.list<T>();
          run(tensors.elements() * kNanosecondsAnElement, [&] {
            clip_scale(*context, where, norm.as<T>(), list.data(), std::ssize(list), kind,
                       max_norm);
          });
        });
        return scalar_result(norm);
      },
      py::arg("grads"), py::arg("max_norm"), py::arg("norm_type"), py::arg("state"));
  m.def(
      "scale",
      [](py::handle grads, StepBuffer& state) {
        CallContext context;
        OptimTensors tensors("clip_grad_norm_", {.params = grads, .grads = grads});  // writable
        const StepState* where = current(*context, state);
        with_float(tensors.dtype(), [&](auto t) {
          for (const auto& tensor : tensors.list<decltype(t)>()) {
            run(tensor.size * kNanosecondsAnElement,
                [&] { scale(*context, tensor.data, tensor.size, where); });
          }
        });
      },
      py::arg("grads"), py::arg("state"));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
