// SPDX-License-Identifier: MIT
// Plan: its inputs, what it keeps alive, and the replay.
#include <algorithm>

#include "families.hpp"
#include "new_object.hpp"
#include "plan.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr double kLong = 1e9;  // a device may have to be waited for, without the GIL

}  // namespace

class Plan::Running {
 public:
  explicit Running(Plan& plan) : plan_(plan) {
    if (plan_.running_) {
      throw std::runtime_error("TrainStep: this step is already running in a thread");
    }
    plan_.running_ = true;
  }
  ~Running() {
    for (auto* list : {&plan_.inputs_, &plan_.outputs_}) {
      for (Bound& bound : *list) {
        bound.owner = py::object();
        bound.keep = py::object();
      }
    }
    plan_.running_ = false;
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

 private:
  Plan& plan_;
};

int Plan::buffer_at(void* address) {
  const auto known = std::find(buffers_.begin(), buffers_.end(), address) - buffers_.begin();
  if (known == std::ssize(buffers_)) buffers_.push_back(address);
  return static_cast<int>(known);
}

Plan::Bound Plan::bound(py::handle placeholder, const char* name) {
  const Tensor tensor = take(placeholder, name);
  return {tensor.data, buffer_at(tensor.data), tensor.dtype, tensor.shape, {}, {}};
}

void Plan::input(py::handle placeholder) { inputs_.push_back(bound(placeholder, "input")); }

void Plan::output(py::handle placeholder) { outputs_ = {bound(placeholder, "output")}; }

Tensor Plan::take(py::handle object, const char* name) {
  if (object.is_none()) return {};
  Tensor tensor = read(object, "Plan", name);
  check_type(tensor.contiguous, "Plan: {} must be C-contiguous", name);
  place_ = tensor.place;
  owners_.push_back(tensor.owner);
  return tensor;
}

StepState* Plan::take_state(const py::object& state) {
  CallContext context;
  context.at(place_);
  owners_.push_back(state);
  auto& buffer = state.cast<StepBuffer&>();
  states_.push_back(&buffer);
  return buffer.memory();
}

py::object Plan::run(py::handle batch, bool accumulate, py::handle out) {
  const auto arrays = py::cast<py::tuple>(batch);
  check(arrays.size() == inputs_.size(), "TrainStep: takes {} arrays; got {}", inputs_.size(),
        arrays.size());
  check(!accumulate || updates_.empty(),
        "TrainStep: a plan that updates weights at once adds to no gradients; got accumulate={}",
        accumulate);
  const Running running(*this);
  CallContext context;
  context.at(place_);
  if (replay_.enter(*context, place_)) {  // its buffers are in use on that stream from now on
    for (const py::object& owner : owners_) note_use(owner);
  }
  for (size_t i = 0; i < inputs_.size(); ++i) {
    Bound& input = inputs_[i];
    Tensor tensor = read_batch(arrays[i], "TrainStep");
    check_type(tensor.dtype == input.dtype, "TrainStep: a batch must be {}; got {}",
               dtype_name(input.dtype), dtype_name(tensor.dtype));
    check_shape(tensor, input.shape, "TrainStep", "a batch");
    buffers_[static_cast<size_t>(input.buffer)] = bind_batch(*context, tensor, input.placeholder);
    input.owner = std::move(tensor.owner);
    input.keep = std::move(tensor.keep);
  }
  py::object result = py::none();
  for (Bound& output : outputs_) {
    const Tensor tensor = make_result(out, output.shape, output.dtype, "predict", {});
    buffers_[static_cast<size_t>(output.buffer)] = tensor.data;
    result = output.owner = tensor.owner;
  }
  for (StepBuffer* state : states_) state->upload(*context);
  accumulate_ = accumulate;
  const bool one_kernel = !accumulate && is_one_kernel();
  if (one_kernel) whole_step_.enter(*context, place_);
  tilegrad::TILEGRAD_BACKEND::run(kOnDevice ? kLong : nanoseconds_, [&] {
    replay_.run(*context, accumulate, [&](Context& target) {
      if (one_kernel) return whole_step_(target);
      for (const Call& call : calls_) {
        WorkspaceScope scope(target);
        call(target);
      }
    });
  });
  return result;
}

void bind_plan(py::module_& m) {
  PlanClass plan(m, "Plan", py::module_local());
  define_constructor(plan);
  plan.def("input", &Plan::input, py::arg("placeholder"))
      .def("output", &Plan::output, py::arg("placeholder"))
      .def("_join", &Plan::join, py::arg("other"))
      .def_property("_one_kernel", &Plan::is_one_kernel,
                    [](Plan& self, bool allowed) { self.whole_step().allow(allowed); });
  bind_plan_layers(plan);
  bind_plan_mlp(plan);
  bind_plan_losses(plan);
  bind_plan_updates(plan);
  plan.def("run", &Plan::run, py::arg("batch"), py::arg("accumulate"), py::arg("out") = py::none());
}

}  // namespace tilegrad::TILEGRAD_BACKEND
