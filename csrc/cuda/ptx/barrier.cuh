// SPDX-License-Identifier: MIT
// Named barriers: 16 a block (0 is __syncthreads'), each for a stated number of threads, a multiple
// of 32: whole warps take part.
// Source: PTX ISA, Parallel Synchronization and Communication: bar, barrier.
#pragma once

#include "site.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// Waits until `threads` threads have come to barrier `id`, by either function.
__device__ inline void named_barrier_sync(int id, int threads,
                                          [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  simulator::named_barrier_sync(static_cast<unsigned>(id), static_cast<unsigned>(threads), site);
#else
  asm volatile("bar.sync %0, %1;" : : "r"(id), "r"(threads) : "memory");
#endif
}

// Counts as having come to barrier `id`, and goes on.
__device__ inline void named_barrier_arrive(int id, int threads,
                                            [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  simulator::named_barrier_arrive(static_cast<unsigned>(id), static_cast<unsigned>(threads), site);
#else
  asm volatile("bar.arrive %0, %1;" : : "r"(id), "r"(threads) : "memory");
#endif
}

}  // namespace tilegrad::TILEGRAD_BACKEND
