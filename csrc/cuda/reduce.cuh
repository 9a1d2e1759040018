// SPDX-License-Identifier: MIT
// Reductions across the threads of a warp or of a block, in a fixed order: the same bits every run.
//
// Math:        a butterfly: at distance 16, 8, .. 1 a lane combines its value with that of lane
//              (lane ^ distance), so that every lane ends with the same total.
// Parallelism: every thread of the warp (block) calls, and every one gets the result. A block of
//              kThreads, a multiple of 32 up to 1024, takes two butterflies: one in each warp over
//              its lanes, one in each warp over the totals of all warps.
// Memory:      kThreads / 32 values of static shared memory; two barriers. Shared memory that the
//              caller filled before the call is visible to the block after it.
// Source:      NVIDIA, Faster Parallel Reductions on Kepler (2014).
#pragma once

#include "launch.cuh"
#include "numeric.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

struct Add {
  template <class V>
  __device__ V operator()(V a, V b) const {
    return a + b;
  }
};
// NaN in either operand passes.
struct Maximum {
  template <class V>
  __device__ V operator()(V a, V b) const {
    return max(a, b);
  }
};

// Long sums of T: double, but float for the 16-bit types, whose results carry few digits.
template <class T>
struct SumType {
  using type = float;
};
template <>
struct SumType<float> {
  using type = double;
};
template <>
struct SumType<double> {
  using type = double;
};
template <class T>
using Sum = typename SumType<T>::type;

// y[i] = sum_p sums[p, i] in a fixed order, rounded to T; added to y where accumulate. The second
// pass of a sum whose first one left an (n) row of sums for each of its pieces. In reduce.cu, for
// sums of every T, and of float for the 16-bit types' sums.
template <class T, class S>
void sum_pieces(Context&, T* y, const S* sums, int64_t pieces, int64_t n, bool accumulate);

// y[i] = sum_r x[r, i] of (rows, cols), added to y where accumulate. In reduce.cu, for Out = T and,
// where T has 16 bits, for float. The sums are Sum<T>.
template <class Out, class T>
void sum_rows(Context&, Out* y, const T* x, int64_t rows, int64_t cols, bool accumulate);

template <class V, class Combine>
__device__ inline V warp_reduce(V value, Combine combine) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    value = combine(value, __shfl_xor_sync(kFullMask, value, distance));
  }
  return value;
}

template <class V>
__device__ inline V warp_sum(V value) {
  return warp_reduce(value, Add{});
}
template <class V>
__device__ inline V warp_max(V value) {
  return warp_reduce(value, Maximum{});
}

// The value that `lane` has, for every lane.
template <class V>
__device__ inline V warp_broadcast(V value, int lane = 0) {
  return __shfl_sync(kFullMask, value, lane);
}

// `identity` leaves any value as it is: combine(identity, v) = v. The block is one-dimensional.
template <int kThreads, class V, class Combine>
__device__ inline V block_reduce(V value, V identity, Combine combine) {
  static_assert(kThreads % kWarpSize == 0 && kThreads <= kWarpSize * kWarpSize);
  constexpr int kWarps = kThreads / kWarpSize;
  value = warp_reduce(value, combine);
  if constexpr (kWarps > 1) {
    __shared__ V totals[kWarps];
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
    // The readers of an earlier call are done with `totals`.
    __syncthreads();
    if (lane == 0) totals[warp] = value;
    // Every warp's total is written.
    __syncthreads();
    value = warp_reduce(lane < kWarps ? totals[lane] : identity, combine);
  }
  return value;
}

template <int kThreads, class V>
__device__ inline V block_sum(V value) {
  return block_reduce<kThreads>(value, V(0), Add{});
}
template <int kThreads, class V>
__device__ inline V block_max(V value) {
  return block_reduce<kThreads>(value, V(-INFINITY), Maximum{});
}

}  // namespace tilegrad::TILEGRAD_BACKEND
