// SPDX-License-Identifier: MIT
// Marks code that nvcc compiles for both sides (nothing to a C++ compiler), and code that must be
// part of its caller.
#pragma once

#ifdef __CUDACC__
#define TILEGRAD_HOST_DEVICE __host__ __device__
#else
#define TILEGRAD_HOST_DEVICE
#endif

#define TILEGRAD_INLINE inline __attribute__((always_inline))
