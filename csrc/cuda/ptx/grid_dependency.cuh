// SPDX-License-Identifier: MIT
// Programmatic dependent launch: a kernel that is launched with LaunchShape::overlaps may start
// while the one before it in the stream still runs. Before compute capability 9.0 and in a plain
// launch these do nothing. The simulator runs one kernel after the other, and refuses one that
// overlaps when a thread of it ends without the wait.
// Source: PTX ISA, Parallel Synchronization and Communication: griddepcontrol.
#pragma once

#include <cuda_runtime.h>

#ifdef TILEGRAD_SIM
#include "../../sim/launch.hpp"
#endif

namespace tilegrad::TILEGRAD_BACKEND {

// Waits until the kernel before has ended and what it wrote is visible. It is the first statement
// of a kernel that overlaps, for every thread of every block: then each kernel ends after the one
// before it, and so after all earlier ones. From here on the next may start, and wait in its turn.
__device__ inline void grid_dependency_wait() {
#ifdef TILEGRAD_SIM
  simulator::grid_dependency_wait();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace tilegrad::TILEGRAD_BACKEND
