// SPDX-License-Identifier: MIT
// How a recorded plan runs on the CPU: its calls one after another, the batch where it lies.
#pragma once

#include "../arrays.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

// Returns the memory in which the calls of this run find the batch.
inline void* bind_batch(Context& context, const Tensor& batch, void* /*placeholder*/) {
  return const_cast<void*>(contiguous_bytes(context, batch));
}
inline void note_use(py::handle /*array*/) {}
inline Tensor read_batch(py::handle object, const char* op) { return read(object, op, "a batch"); }

class Replay {
 public:
  bool enter(const Context& /*context*/, int /*place*/) { return false; }
  void join(const Replay& /*other*/) {}
  template <class Calls>
  void run(Context& context, int /*form*/, Calls&& calls) {
    calls(context);
  }
};

}  // namespace tilegrad::TILEGRAD_BACKEND
