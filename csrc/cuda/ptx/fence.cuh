// SPDX-License-Identifier: MIT
// Fences between ordinary accesses and those of the copy engine and the tensor cores.
// Source: PTX ISA, Parallel Synchronization and Communication: membar / fence (proxy fences).
#pragma once

#include "site.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// Ordinary writes to shared memory by this thread become visible to wgmma and TMA: it goes before
// the barrier after which they read.
__device__ inline void fence_proxy_async([[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  // Memory in the simulator has one order for all.
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#else
  __trap();
#endif
}

// Initialised mbarriers become visible to the copy engine (and to the cluster).
__device__ inline void fence_mbarrier_init([[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  // As above.
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#else
  __trap();
#endif
}

}  // namespace tilegrad::TILEGRAD_BACKEND
