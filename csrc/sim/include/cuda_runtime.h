// SPDX-License-Identifier: MIT
// The simulator's <cuda_runtime.h>: what the project's CUDA sources use of CUDA, for a C++20
// compiler. Kernels run in the runtime of csrc/sim.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "sim_vectors.h"
//
#include "../registers.hpp"

// Function and variable qualifiers. One block is resident on a host thread at a time, so shared
// memory is thread_local (which makes a block-scope variable static, as __shared__ does).
#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ thread_local
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define __cluster_dims__(...)

#define threadIdx (::tilegrad::simulator::registers.thread_index)
#define blockIdx (::tilegrad::simulator::registers.block_index)
#define blockDim (::tilegrad::simulator::registers.block_size)
#define gridDim (::tilegrad::simulator::registers.grid_size)
inline constexpr int warpSize = 32;

#include "sim_device.h"
#include "sim_host.h"
