// SPDX-License-Identifier: MIT
// A StepState that Python sets and kernels read: on the CPU one and the same memory.
#pragma once

#include "traits.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

class StepBuffer {
 public:
  template <class V>
  V get(V StepState::* field) const {
    return value_.*field;
  }
  template <class V>
  void set(V StepState::* field, V value) {
    value_.*field = value;
  }
  // Where kernels read and write it.
  StepState* memory() { return &value_; }
  // Brings there what was set since the last call.
  void upload(Context&) {}

 private:
  StepState value_;
};

}  // namespace tilegrad::TILEGRAD_BACKEND
