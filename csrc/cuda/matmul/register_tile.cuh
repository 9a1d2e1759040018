// SPDX-License-Identifier: MIT
// What a thread holds in registers: its part of a tile of c, and how operands come to it.
//
// Math:        sum[r,s] += sum_p a[r,p] b[p,s]: kTileK outer products of a column and a row.
// Parallelism: each thread for itself; ThreadAxis says which rows and columns are its own.
// Memory:      16 bytes of shared memory an instruction. Where the runs of neighbouring lanes are
//              neighbours too, or the same, there are no bank conflicts.
#pragma once

#include <cstdint>
#include <cstring>

#include "../numeric.cuh"
#include "../ptx/store.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// 16 bytes of float or double, 8 bytes of a 16-bit type that becomes 16 bytes of float: what a
// thread moves in one instruction.
template <class T>
inline constexpr int kGroup = 16 / sizeof(Accumulate<T>);
template <class T>
struct GroupBitsType {
  using type = float4;
};
template <>
struct GroupBitsType<bfloat16> {
  using type = float2;
};
template <>
struct GroupBitsType<float16> {
  using type = float2;
};
template <class T>
using GroupBits = typename GroupBitsType<T>::type;

// One instruction each, for addresses that are aligned to the group.
template <class T>
__device__ inline void load_group(T (&value)[kGroup<T>], const T* p) {
  const GroupBits<T> bits = *reinterpret_cast<const GroupBits<T>*>(p);
  std::memcpy(value, &bits, sizeof(bits));
}
template <class T>
__device__ inline void store_group(T* p, const T (&value)[kGroup<T>]) {
  GroupBits<T> bits;
  std::memcpy(static_cast<void*>(&bits), value, sizeof(bits));
  *reinterpret_cast<GroupBits<T>*>(p) = bits;
}

// The same to global memory.
template <class T>
__device__ inline void store_group_global(T* p, const T (&value)[kGroup<T>]) {
  if constexpr (sizeof(GroupBits<T>) == 16) {
    uint4 bits;
    std::memcpy(static_cast<void*>(&bits), value, sizeof(bits));
    store_16(p, bits);
  } else {
    uint2 bits;
    std::memcpy(static_cast<void*>(&bits), value, sizeof(bits));
    store_8(p, bits);
  }
}

// Where the elements of a thread lie on one axis: kCount of them in runs of kRun neighbours, the
// runs kStep apart. kRun = 1 interleaves the threads, kRun = kCount gives each a block of its own.
template <int kCountValue, int kRunValue, int kStepValue>
struct ThreadAxis {
  static constexpr int kCount = kCountValue;
  static constexpr int kRun = kRunValue;
  static constexpr int kStep = kStepValue;
  __device__ static constexpr int at(int e) { return e / kRun * kStep + e % kRun; }
};

// The thread's elements of a row of an operand tile, 16 bytes at a time.
template <class Axis, class V>
__device__ inline void load_fragment(V (&fragment)[Axis::kCount], const V* line) {
  static_assert(Axis::kRun % kGroup<V> == 0 && Axis::kStep % kGroup<V> == 0);
#pragma unroll
  for (int e = 0; e < Axis::kCount; e += kGroup<V>) {
    V group[kGroup<V>];
    load_group(group, line + Axis::at(e));
#pragma unroll
    for (int g = 0; g < kGroup<V>; ++g) fragment[e + g] = group[g];
  }
}

// sum += the product of a slice of both operands, as kTileK outer products in registers. tile_a and
// tile_b point at the thread's first row and column. Two steps of p are unrolled: the fragments of
// all kTileK would not fit in registers beside the sums, with two blocks on a multiprocessor.
template <class Rows, class Cols, int kTileK, int kPitchA, int kPitchB, class V>
__device__ inline void multiply_slice(V (&sum)[Rows::kCount * Cols::kCount], const V* tile_a,
                                      const V* tile_b) {
#pragma unroll 2
  for (int p = 0; p < kTileK; ++p) {
    V from_a[Rows::kCount], from_b[Cols::kCount];
    load_fragment<Rows>(from_a, tile_a + p * kPitchA);
    load_fragment<Cols>(from_b, tile_b + p * kPitchB);
#pragma unroll
    for (int r = 0; r < Rows::kCount; ++r) {
#pragma unroll
      for (int s = 0; s < Cols::kCount; ++s) {
        sum[r * Cols::kCount + s] = fma(from_a[r], from_b[s], sum[r * Cols::kCount + s]);
      }
    }
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
