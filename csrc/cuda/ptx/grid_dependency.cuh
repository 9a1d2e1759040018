// SPDX-License-Identifier: MIT
// Programmatic dependent launch: a kernel that is launched with LaunchShape::overlaps may start
// while the one before it in the stream still runs. Before compute capability 9.0, in the simulator
// and in a plain launch these do nothing. Source: PTX ISA, Parallel Synchronization and
// Communication: griddepcontrol.
#pragma once

#include <cuda_runtime.h>

namespace tilegrad::TILEGRAD_BACKEND {

// Waits until all earlier kernels have ended and what they wrote is visible. The first statement of
// every thread of every block of a kernel that overlaps: it touches no memory before.
__device__ inline void grid_dependency_wait() {
#if !defined(TILEGRAD_SIM) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// From the moment that all blocks have called this or ended, the next kernel may start (and waits
// in its grid_dependency_wait). Without any call that is the moment when the last block ends.
__device__ inline void grid_dependency_launch() {
#if !defined(TILEGRAD_SIM) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace tilegrad::TILEGRAD_BACKEND
