// SPDX-License-Identifier: MIT
// What bindings must know of the cuda and sim backends at compile time, and the context of a call:
// the device of its operands, the calling thread's current stream there and its workspace.
#pragma once

#include <optional>

#include "../../ops.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

inline constexpr bool kHasBfloat16 = true;
inline constexpr bool kHasFloat16 = true;
inline constexpr bool kOnDevice = true;  // arrays lie where only kernels reach them

// Python names a device by its place: -1 is sim, 0, 1, ... are cuda:0, cuda:1, ...
#ifdef TILEGRAD_SIM
inline constexpr int kFirstPlace = -1;
inline constexpr const char* kBackendName = "sim";
#else
inline constexpr int kFirstPlace = 0;
inline constexpr const char* kBackendName = "cuda";
#endif

class CallContext {
 public:
  CallContext();
  ~CallContext();
  CallContext(const CallContext&) = delete;
  CallContext& operator=(const CallContext&) = delete;

  // Says where the call works. The first operand that is read does so.
  void at(int place);
  bool placed() const { return context_ != nullptr; }
  // Names the call in the time line of a profiler, if one is there.
  void named(const char* op);
  int place() const { return place_; }
  // Of the call's place, or of the default one if nothing has said.
  Context& operator*();

  // The innermost call of this thread, or null.
  static CallContext* current();

 private:
  CallContext* outer_;
  int place_ = kFirstPlace;
  Context* context_ = nullptr;
  bool named_ = false;
  std::optional<WorkspaceScope> scope_;
};

}  // namespace tilegrad::TILEGRAD_BACKEND
