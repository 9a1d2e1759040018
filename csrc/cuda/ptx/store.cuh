// SPDX-License-Identifier: MIT
// Stores of 16 and 8 bytes to global memory that stay one instruction. nvcc takes an assignment of
// a uint4 apart where it merges it with the scalar stores of another branch, and then writes every
// sector in four pieces.
#pragma once

#include <cstdint>

#include "../../host_device.hpp"
#include "site.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// Source: PTX ISA, st.
__device__ inline void store_16(void* to, const uint4& bits, [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  if (simulator::is_shared(to)) simulator::fail("st.global: shared memory", site);
  *static_cast<uint4*>(to) = bits;
#elif defined(__CUDA_ARCH__)
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)),
               "r"(bits.x), "r"(bits.y), "r"(bits.z), "r"(bits.w)
               : "memory");
#else
  *static_cast<uint4*>(to) = bits;
#endif
}

__device__ inline void store_8(void* to, const uint2& bits, [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  if (simulator::is_shared(to)) simulator::fail("st.global: shared memory", site);
  *static_cast<uint2*>(to) = bits;
#elif defined(__CUDA_ARCH__)
  asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(to)), "r"(bits.x),
               "r"(bits.y)
               : "memory");
#else
  *static_cast<uint2*>(to) = bits;
#endif
}

}  // namespace tilegrad::TILEGRAD_BACKEND
