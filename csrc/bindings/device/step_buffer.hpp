// SPDX-License-Identifier: MIT
// A StepState that Python sets and kernels read: a copy on the host, and device memory that
// upload() brings up to date. A captured graph reads the device memory, so it sees every step's own
// values.
#pragma once

#include <memory>

#include "../../cuda/step_state.hpp"
#include "storage.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

class StepBuffer {
 public:
  template <class V>
  V get(V StepState::* field) {
    if (!changed_ && storage_ != nullptr) {  // a kernel may have written it (clipping does)
      StepState now;
      enter(place_);
      const cudaStream_t stream = current_stream(place_);
      order_.enter(place_, stream);
      staging(place_).download(&now, storage_->data(), sizeof(now), stream);
      return now.*field;
    }
    return value_.*field;
  }
  template <class V>
  void set(V StepState::* field, V value) {
    value_.*field = value;
    changed_ = true;
  }
  StepState* memory() {
    if (storage_ == nullptr) {
      const CallContext* call = CallContext::current();
      place_ = call == nullptr ? kFirstPlace : call->place();
      enter(place_);
      storage_ = std::make_unique<Storage>(sizeof(StepState), place_);
    }
    return static_cast<StepState*>(storage_->data());
  }
  void upload(Context& context) {
    StepState* const where = memory();
    const auto stream = static_cast<cudaStream_t>(context.stream);
    storage_->used_on(stream);
    order_.enter(place_, stream);  // plans share a state: one of them may still read it
    if (!changed_) return;
    store_step_state(context, where, value_);
    changed_ = false;
  }

 private:
  StepState value_;
  bool changed_ = true;
  int place_ = kFirstPlace;
  std::unique_ptr<Storage> storage_;
  StreamOrder order_;
};

}  // namespace tilegrad::TILEGRAD_BACKEND
