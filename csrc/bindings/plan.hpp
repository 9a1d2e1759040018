// SPDX-License-Identifier: MIT
// Plan: a recorded list of op calls over fixed buffers, run as one native call. A training step is
// recorded once for each shape and dtype of its batch and replayed with the GIL released; on a GPU
// the same list is what a CUDA graph captures. The calls are those of the long form, so the bits
// are too, but for chains of linear layers on a device (linear_chain.hpp). What can be
// recorded stands in bind_plan_*.cpp.
#pragma once

#include <functional>
#include <memory>
#include <type_traits>
#include <vector>

#include "fused_updates.hpp"
#include "linear_chain.hpp"
#include "optim_tensors.hpp"
#include "replay.hpp"
#include "step_buffer.hpp"
#include "whole_step.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

template <class T>
constexpr DType dtype_of_type() {
  if constexpr (std::is_same_v<T, bfloat16>) return DType::bfloat16;
  if constexpr (std::is_same_v<T, float16>) return DType::float16;
  return sizeof(T) == sizeof(double) ? DType::float64 : DType::float32;
}

class Plan {
 public:
  using Call = std::function<void(Context&)>;

  // One of the plan's buffers: its own memory, or that of an array of the current run.
  template <class T>
  struct Pointer {
    const Plan* plan;
    int buffer;  // -1: null
    T* operator()() const {
      return buffer < 0 ? nullptr : static_cast<T*>(plan->buffers_[static_cast<size_t>(buffer)]);
    }
  };

  Plan() = default;
  Plan(const Plan&) = delete;  // recorded calls hold its address
  Plan& operator=(const Plan&) = delete;

  // Declares an array that stands for whatever run() is given in its place: calls recorded with it
  // (or with a reshaped view of it) read the memory of that run's array.
  void input(py::handle placeholder);
  // The same for the array that run() writes and returns, on the CPU only.
  void output(py::handle placeholder);

  // Runs of both come one after the other, also on different streams.
  void join(const Plan& other) { replay_.join(other.replay_); }

  // Replays the calls on this batch. With accumulate, gradients of parameters are added to.
  // Returns the output, a new array where `out` is None, if there is one.
  py::object run(py::handle batch, bool accumulate, py::handle out);
  // Of the current run.
  bool accumulates() const { return accumulate_; }

  // Where a recorded call finds an array; None is null.
  template <class T>
  Pointer<T> at(py::handle object) {
    if (object.is_none()) return {this, -1};
    const Tensor tensor = take(object, "a buffer");
    if constexpr (!std::is_void_v<T>) {
      constexpr DType kWanted = dtype_of_type<std::remove_const_t<T>>();
      check_type(tensor.dtype == kWanted,
                 "TrainStep: floating inputs must share one dtype; got {} and {}",
                 dtype_name(tensor.dtype), dtype_name(kWanted));
    }
    return {this, buffer_at(tensor.data)};
  }

  // The same as of now, for any dtype.
  void* address(py::handle object) { return at<void>(object)(); }

  // These read an operand of a call and keep it alive as long as the plan.
  Tensor take(py::handle object, const char* name);
  StepState* take_state(const py::object& state);
  std::shared_ptr<OptimTensors> take_tensors(const char* op, const StepLists& lists) {
    auto tensors = std::make_shared<OptimTensors>(op, lists);
    place_ = tensors->place();
    owners_.insert(owners_.end(), tensors->owners().begin(), tensors->owners().end());
    return tensors;
  }

  // Adds make(T{}), a call for the C++ type of a dtype, of about so many nanoseconds.
  template <Floats kFloats = Floats::all, class Make>
  void record(DType dtype, double nanoseconds, Make&& make) {
    if constexpr (kFloats == Floats::all) {
      calls_.push_back(with_any_float(dtype, make));
    } else {
      calls_.push_back(with_float(dtype, make));
    }
    nanoseconds_ += nanoseconds;
  }

  FusedUpdates& updates() { return updates_; }
  WholeStep& whole_step() { return whole_step_; }
  // Whether one kernel does all that was recorded, and does it in the next run.
  bool is_one_kernel() { return whole_step_.replaces(calls_.size()); }
  LinearChain& chain() { return chain_; }
  size_t calls() const { return calls_.size(); }  // recorded so far

 private:
  // The buffers are one step's: a second thread must not enter meanwhile. Under the GIL.
  class Running;

  struct Bound {
    void* placeholder;
    int buffer;
    DType dtype;
    Dims shape;
    py::object owner, keep;  // the array of the current run
  };

  // The number of the buffer that begins at an address when it is recorded.
  int buffer_at(void* address);
  Bound bound(py::handle placeholder, const char* name);

  std::vector<void*> buffers_;  // where they are in the current run
  std::vector<Bound> inputs_;
  std::vector<Bound> outputs_;  // one at most
  std::vector<Call> calls_;
  std::vector<py::object> owners_;  // keeps buffers and states alive
  std::vector<StepBuffer*> states_;
  FusedUpdates updates_;
  WholeStep whole_step_;
  LinearChain chain_;
  Replay replay_;
  double nanoseconds_ = 0;  // estimated serial time of the calls
  int place_ = kFirstPlace;
  bool accumulate_ = false;
  bool running_ = false;
};

using PlanClass = py::class_<Plan>;
void bind_plan_layers(PlanClass& plan);
void bind_plan_mlp(PlanClass& plan);
void bind_plan_losses(PlanClass& plan);
void bind_plan_updates(PlanClass& plan);

}  // namespace tilegrad::TILEGRAD_BACKEND
