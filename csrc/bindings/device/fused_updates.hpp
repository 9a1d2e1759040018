// SPDX-License-Identifier: MIT
// On a device every gradient is stored: one launch updates all parameters.
#pragma once

#include <vector>

#include "../../ops.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

class FusedUpdates {
 public:
  template <class T>
  struct Update {
    bool is_set() const { return false; }
    template <class... Operands>
    void linear_backward(const Operands&...) const {}
  };

  template <class T>
  Update<T> offer(const void* /*gradient*/, int64_t /*size*/) {
    return {};
  }
  void withdraw() {}
  template <class T, class Options>
  void claim(std::vector<OptimTensor<T>>&, const Options&, const StepState*) {}
  bool empty() const { return true; }
};

}  // namespace tilegrad::TILEGRAD_BACKEND
