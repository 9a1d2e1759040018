// SPDX-License-Identifier: MIT
// setmaxnreg: a warpgroup gives registers back to the block, or takes more. All of its threads
// call; the kernel has a register cap at entry (__launch_bounds__(threads, 1)).
// Source: PTX ISA, Miscellaneous: setmaxnreg.
#pragma once

#include "site.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// From now on a thread of this warpgroup has kCount registers, more than it had.
template <int kCount>
__device__ inline void setmaxnreg_inc() {
  static_assert(kCount % 8 == 0 && kCount >= 24 && kCount <= 256);
#ifdef TILEGRAD_SIM
  // Registers are not counted in the simulator.
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(kCount));
#else
  __trap();
#endif
}

// From now on a thread of this warpgroup has kCount registers, fewer than it had.
template <int kCount>
__device__ inline void setmaxnreg_dec() {
  static_assert(kCount % 8 == 0 && kCount >= 24 && kCount <= 256);
#ifdef TILEGRAD_SIM
  // As above.
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(kCount));
#else
  __trap();
#endif
}

}  // namespace tilegrad::TILEGRAD_BACKEND
