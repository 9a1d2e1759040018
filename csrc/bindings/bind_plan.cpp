// SPDX-License-Identifier: MIT
// Plan: its inputs, what it keeps alive, and the replay.
#include "families.hpp"
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
    for (Input& input : plan_.inputs_) {
      input.owner = py::object();
      input.keep = py::object();
    }
    plan_.running_ = false;
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

 private:
  Plan& plan_;
};

void Plan::input(py::handle placeholder) {
  const Tensor tensor = take(placeholder, "input");
  inputs_.push_back({tensor.data, tensor.dtype, tensor.shape, tensor.data, {}, {}});
}

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

void Plan::run(py::tuple batch, bool accumulate) {
  check(batch.size() == inputs_.size(), "TrainStep: takes {} arrays; got {}", inputs_.size(),
        batch.size());
  check(!accumulate || updates_.empty(),
        "TrainStep: a plan that updates weights at once adds to no gradients; got accumulate={}",
        accumulate);
  const Running running(*this);
  CallContext context;
  context.at(place_);
  for (size_t i = 0; i < inputs_.size(); ++i) {
    Input& input = inputs_[i];
    Tensor tensor = read_batch(batch[i], "TrainStep");
    check_type(tensor.dtype == input.dtype, "TrainStep: a batch must be {}; got {}",
               dtype_name(input.dtype), dtype_name(tensor.dtype));
    check_shape(tensor, input.shape, "TrainStep", "a batch");
    input.data = bind_batch(*context, tensor, input.placeholder);
    input.owner = std::move(tensor.owner);
    input.keep = std::move(tensor.keep);
  }
  for (StepBuffer* state : states_) state->upload(*context);
  if ((*context).stream != stream_) {  // its buffers are in use there from now on
    stream_ = (*context).stream;
    for (const py::object& owner : owners_) note_use(owner);
  }
  accumulate_ = accumulate;
  tilegrad::TILEGRAD_BACKEND::run(kOnDevice ? kLong : nanoseconds_, [&] {
    replay_.run(*context, accumulate, [&](Context& target) {
      for (const Call& call : calls_) {
        WorkspaceScope scope(target);
        call(target);
      }
    });
  });
}

void bind_plan(py::module_& m) {
  PlanClass plan(m, "Plan", py::module_local());
  plan.def(py::init<>()).def("input", &Plan::input, py::arg("placeholder"));
  bind_plan_layers(plan);
  bind_plan_losses(plan);
  bind_plan_updates(plan);
  plan.def("run", &Plan::run, py::arg("batch"), py::arg("accumulate"));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
