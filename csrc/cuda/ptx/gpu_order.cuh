// SPDX-License-Identifier: MIT
// Atomic accesses to global memory that order the ordinary ones of different blocks: who reads by
// load_acquire_gpu what another has written by add_release_gpu sees all that the other, and those
// that it had met at a barrier, had written before.
// Source: PTX ISA, Memory Consistency Model; Parallel Synchronization and Communication: atom; Data
// Movement and Conversion: ld.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace tilegrad::TILEGRAD_BACKEND {

// *p += value; returns what it was (release).
__device__ inline uint32_t add_release_gpu(uint32_t* p, uint32_t value) {
#ifdef TILEGRAD_SIM
  return __atomic_fetch_add(p, value, __ATOMIC_RELEASE);
#else
  uint32_t before;
  asm volatile("atom.add.release.gpu.global.u32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(__cvta_generic_to_global(p)), "r"(value)
               : "memory");
  return before;
#endif
}

// *p (acquire).
__device__ inline uint32_t load_acquire_gpu(const uint32_t* p) {
#ifdef TILEGRAD_SIM
  return __atomic_load_n(p, __ATOMIC_ACQUIRE);
#else
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
               : "=r"(value)
               : "l"(__cvta_generic_to_global(p))
               : "memory");
  return value;
#endif
}

}  // namespace tilegrad::TILEGRAD_BACKEND
