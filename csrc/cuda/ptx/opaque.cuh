// SPDX-License-Identifier: MIT
// A value that the compiler knows nothing of: what is computed from it is computed there, and not
// before a loop that needs the registers.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace tilegrad::TILEGRAD_BACKEND {

__device__ inline int64_t opaque(int64_t x) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+l"(x));
#endif
  return x;
}

}  // namespace tilegrad::TILEGRAD_BACKEND
