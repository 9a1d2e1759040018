// SPDX-License-Identifier: MIT
// What bindings must know of the cpu backend at compile time, and the context of a call there.
#pragma once

#include "../../cpu/matmul_bfloat16.hpp"
#include "../../ops.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

inline constexpr bool kHasBfloat16 = true;
inline constexpr bool kHasFloat16 = false;
inline constexpr bool kOnDevice = false;  // arrays lie where only kernels reach them
inline constexpr int kFirstPlace = 0;     // there is one place

// The calling thread's context.
Context& thread_context();

// The context of one call of a binding; its workspace is free again when the scope ends.
class CallContext {
 public:
  CallContext() : context_(thread_context()), scope_(context_) {}
  Context& operator*() { return context_; }
  // Says where the call works, if no operand is read in it.
  void at(int /*place*/) {}

 private:
  Context& context_;
  WorkspaceScope scope_;
};

}  // namespace tilegrad::TILEGRAD_BACKEND
