// SPDX-License-Identifier: MIT
// spin_wait(condition): a thread waits until condition() holds. In the simulator the waiting thread
// sleeps and others run; condition then must not look at threadIdx.
#pragma once

#include <cuda_runtime.h>

namespace tilegrad::TILEGRAD_BACKEND {

#ifdef TILEGRAD_SIM
using simulator::spin_wait;
#else
template <class Condition>
__device__ inline void spin_wait(const Condition& condition) {
  while (!condition()) {
  }
}
#endif

}  // namespace tilegrad::TILEGRAD_BACKEND
