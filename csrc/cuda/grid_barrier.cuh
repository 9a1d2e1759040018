// SPDX-License-Identifier: MIT
// grid_sync: a barrier of all blocks of a grid that is launched with LaunchShape::cooperative.
//
// One counter in global memory, 0 at first. In each phase one block adds 2^31 - (blocks - 1) and
// every other 1, together 2^31: the highest bit flips when the last has come, and the others are 0
// again. So the counter needs no reset: not between phases, nor between launches or replays of a
// graph, which may use it one after the other (never at once).
// Source: the counter of cooperative_groups' grid barrier; integers, so any order gives the same.
#pragma once

#include <cuda_runtime.h>

#include "ptx/gpu_order.cuh"
#include "spin_wait.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

struct GridBarrier {
  uint32_t counter;
};

// All threads of all blocks call. What any of them has written before, all see afterwards.
__device__ inline void grid_sync(GridBarrier* barrier) {
  // All of this block has come: its thread 0 speaks for it.
  __syncthreads();
  if (threadIdx.x == 0 && threadIdx.y == 0 && threadIdx.z == 0) {
    const bool first = blockIdx.x == 0 && blockIdx.y == 0 && blockIdx.z == 0;
    const uint32_t blocks = gridDim.x * gridDim.y * gridDim.z;
    const uint32_t before =
        add_release_gpu(&barrier->counter, first ? 0x80000000u - (blocks - 1) : 1u);
    spin_wait([&] { return ((load_acquire_gpu(&barrier->counter) ^ before) >> 31) != 0; });
  }
  // Thread 0 has seen that all blocks have come.
  __syncthreads();
}

}  // namespace tilegrad::TILEGRAD_BACKEND
