// SPDX-License-Identifier: MIT
// What a host thread keeps about the CUDA thread that it is running.
//
// It is the runtime's only thread_local object: static __shared__ arrays are thread_local too and
// are found as "the thread_local storage of the kernel's module without this object" (shared.cpp).
#pragma once

#include "include/sim_vectors.h"

// What a kernel calls of the runtime, also from a library of its own (kernel_library.hpp).
#define TILEGRAD_FOR_KERNELS [[gnu::visibility("default")]]

namespace tilegrad::simulator {

struct Worker;
class TraceHooks;

struct Registers {
  uint3 thread_index;
  uint3 block_index;
  uint3 block_size;
  uint3 grid_size;
  unsigned linear_thread;  // thread_index as one number
  int last_error;          // cudaGetLastError's
  int device;              // cudaSetDevice's
  Worker* worker;          // made by the first launch of this host thread
  TraceHooks* tracer;      // of the launch in progress; nullptr: it is not traced
  unsigned trace_muted;    // > 0: accesses are not the kernel's
};

#ifdef TILEGRAD_KERNEL_LIBRARY
extern constinit thread_local Registers registers;  // those of the module that it is linked to
#else
TILEGRAD_FOR_KERNELS inline constinit thread_local Registers registers{};
#endif

}  // namespace tilegrad::simulator
