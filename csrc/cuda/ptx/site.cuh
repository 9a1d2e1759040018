// SPDX-License-Identifier: MIT
// What every instruction wrapper needs: the line of its call, for the simulator's reports, and
// shared memory by address.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "../../host_device.hpp"
#ifdef TILEGRAD_SIM
#include "../../sim/async.hpp"
#include "../../sim/launch.hpp"
#endif

namespace tilegrad::TILEGRAD_BACKEND {

#ifdef TILEGRAD_SIM
using simulator::Site;
inline Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return {file, line};
}
#else
struct Site {};  // the device does not ask
TILEGRAD_HOST_DEVICE constexpr Site here() { return {}; }
#endif

// The address in the shared window that instructions take (PTX ISA, cvta). In the simulator it
// counts from the start of the block's dynamic shared memory.
__device__ inline uint32_t shared_address(const void* p) {
#ifdef TILEGRAD_SIM
  return static_cast<uint32_t>(static_cast<const char*>(p) -
                               static_cast<const char*>(simulator::dynamic_shared_memory()));
#else
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
#endif
}

#ifdef TILEGRAD_SIM
// An operand must lie in shared memory, aligned.
inline void check_shared(const void* p, uintptr_t alignment, const char* what, Site site) {
  if (!simulator::is_shared(p)) simulator::fail(std::string(what) + ": not shared memory", site);
  if (reinterpret_cast<uintptr_t>(p) % alignment != 0) {
    simulator::fail(std::string(what) + ": misaligned shared memory address", site);
  }
}

// What the analysis of memory accesses (csrc/sim/trace_hooks.hpp) is told where it listens.
inline void trace_access(const char* what, Site site, const void* p, unsigned bytes, bool writes) {
  if (simulator::tracer() != nullptr) {
    simulator::tracer()->access(what, site, p, bytes, writes);
  }
}
inline void trace_async(const simulator::AsyncTag& tag, const uint64_t* barrier, const void* p,
                        size_t bytes, bool writes) {
  if (simulator::tracer() != nullptr && bytes != 0) {
    simulator::tracer()->async_access(tag, barrier, p, bytes, writes);
  }
}
inline void trace_flops(uint64_t count) {
  if (simulator::tracer() != nullptr) simulator::tracer()->flops(count);
}
#endif

}  // namespace tilegrad::TILEGRAD_BACKEND
