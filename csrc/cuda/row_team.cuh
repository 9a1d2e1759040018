// SPDX-License-Identifier: MIT
// The threads that have a row together: some lanes of a warp, a block, or a column of a block. A
// team knows its threads' numbers, how many of them read neighbours, and its reductions, which are
// made in a fixed order and leave the same bits in every thread.
#pragma once

#include "reduce.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// kLanes neighbours of a warp; every lane of the warp calls the reductions.
template <int kLanes>
struct LaneTeam {
  static constexpr int kThreads = kLanes;
  static constexpr int kSideBySide = kLanes;

  __device__ static int thread() { return static_cast<int>(threadIdx.x) % kLanes; }
  template <class V, class Combine>
  __device__ static V reduce(V value, Combine combine) {
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2) {
      value = combine(value, __shfl_xor_sync(kFullMask, value, distance));
    }
    return value;
  }
  template <class V>
  __device__ static V sum(V value) {
    return reduce(value, Add{});
  }
  template <class V>
  __device__ static V max(V value) {
    return reduce(value, Maximum{});
  }
};

template <int kBlock>
struct BlockTeam {
  static constexpr int kThreads = kBlock;
  static constexpr int kSideBySide = kWarpSize;

  __device__ static int thread() { return static_cast<int>(threadIdx.x); }
  template <class V>
  __device__ static V sum(V value) {
    return block_sum<kBlock>(value);
  }
  template <class V>
  __device__ static V max(V value) {
    return block_max<kBlock>(value);
  }
};

// A block of kSlices warps over 32 columns: the kSlices threads of a column are a team.
template <int kSlices>
struct ColumnTeam {
  template <class V, class Combine>
  __device__ static V reduce(V value, Combine combine) {
    __shared__ V values[kSlices][kWarpSize];  // (slice, column)
    const int column = static_cast<int>(threadIdx.x) % kWarpSize;
    const int slice = static_cast<int>(threadIdx.x) / kWarpSize;
    // The readers of an earlier call are done with `values`.
    __syncthreads();
    values[slice][column] = value;
    // Every slice's value is written.
    __syncthreads();
    value = values[0][column];
#pragma unroll
    for (int i = 1; i < kSlices; ++i) value = combine(value, values[i][column]);
    return value;
  }
  template <class V>
  __device__ static V sum(V value) {
    return reduce(value, Add{});
  }
  template <class V>
  __device__ static V max(V value) {
    return reduce(value, Maximum{});
  }
};

}  // namespace tilegrad::TILEGRAD_BACKEND
