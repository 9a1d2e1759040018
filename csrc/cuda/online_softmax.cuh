// SPDX-License-Identifier: MIT
// What softmax and cross_entropy share: who reads what of a row, and the maximum and the sum of
// exponentials in one read.
//
// Math:        online: on a new maximum m' the sum so far is multiplied by exp(m - m').
// Parallelism: a team of threads has a row (row_team.cuh).
//              Totals are made over the team in a fixed order: first the maximum, then the rescaled
//              sums, so that only additions are shared and every thread has the same bits.
// Memory:      a thread reads packets of 16 bytes where `classes` fills whole packets (element by
//              element if a pointer is unaligned), else the team reads neighbours one by one. The
//              shape alone decides who has which element, so that alignment cannot change the bits.
// Source:      Milakov and Gimelshein, arXiv 1805.02867.
#pragma once

#include "row_team.cuh"
#include "vector_io.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// The elements of a row that a thread has in one round: base + j * (packed ? 1 : kSideBySide).
// Within it offsets have 32 bits, or their registers would fill the file.
template <class T, class Team>
struct RowSlot {
  int64_t base;
  int left;  // elements of the row from base on, cut to an int; none is below 1
  bool packed, whole;

  __device__ int step(int j) const { return packed ? j : j * Team::kSideBySide; }
  __device__ bool has(int j) const { return (packed ? 0 : j * Team::kSideBySide) < left; }
  __device__ bool empty() const { return left <= 0; }
  // The step of the class, or -1 if it lies elsewhere.
  __device__ int find(int64_t index) const {
    const int64_t distance = index - base;
    return distance >= 0 && distance < kPacket<T> * Team::kSideBySide ? static_cast<int>(distance)
                                                                      : -1;
  }

  // Elements that it has not are zero.
  __device__ Packet<T> load(const T* row) const {
    Packet<T> packet{};
    const T* p = row + base;
    if (whole) {
      const uint4 bits = *reinterpret_cast<const uint4*>(p);
      std::memcpy(packet.at, &bits, kPacketBytes);
    } else if (packed) {
#pragma unroll
      for (int j = 0; j < kPacket<T>; ++j) {
        if (left > 0) packet.at[j] = p[j];
      }
    } else {
#pragma unroll
      for (int j = 0; j < kPacket<T>; ++j) {
        if (j * Team::kSideBySide < left) packet.at[j] = p[j * Team::kSideBySide];
      }
    }
    return packet;
  }
  __device__ void store(T* row, const Packet<T>& packet) const {
    T* p = row + base;
    if (whole) {
      uint4 bits;
      std::memcpy(static_cast<void*>(&bits), packet.at, kPacketBytes);
      *reinterpret_cast<uint4*>(p) = bits;
    } else if (packed) {
#pragma unroll
      for (int j = 0; j < kPacket<T>; ++j) {
        if (left > 0) p[j] = packet.at[j];
      }
    } else {
#pragma unroll
      for (int j = 0; j < kPacket<T>; ++j) {
        if (j * Team::kSideBySide < left) p[j * Team::kSideBySide] = packet.at[j];
      }
    }
  }
};

// The slots of a row of n elements that a thread of a team owns, one a round.
template <class T, class Team>
struct RowSlots {
  int64_t n;
  bool packed;  // n fills whole packets: a thread's elements are neighbours
  bool whole;   // and every pointer is aligned: one access moves them

  __device__ int64_t rounds() const {
    constexpr int64_t kRound = int64_t{Team::kThreads} * kPacket<T>;
    return (n + kRound - 1) / kRound;
  }
  __device__ RowSlot<T, Team> at(int64_t round) const {
    const int lane = Team::thread() % Team::kSideBySide;
    const int thread = (Team::thread() - lane) * kPacket<T> + (packed ? lane * kPacket<T> : lane);
    const int64_t base = round * (Team::kThreads * kPacket<T>)+thread;
    const int64_t left = n - base;
    const int some = left > 0 ? static_cast<int>(left < INT32_MAX ? left : INT32_MAX) : 0;
    return {base, some, packed, whole && left > 0};
  }
};

// `aligned`: every pointer that is read or written by it.
template <class T, class Team>
RowSlots<T, Team> row_slots(int64_t classes, bool aligned) {
  const bool packed = classes % kPacket<T> == 0;
  return {classes, packed, packed && aligned};
}

// f(round, slot, packet of x) for all slots of the thread; kBatch loads are under way at a time.
template <int kBatch, class T, class Team, class F>
__device__ inline void for_row(const RowSlots<T, Team>& slots, const T* x, F f) {
  const int64_t rounds = slots.rounds();
  for (int64_t round = 0; round < rounds; round += kBatch) {
    Packet<T> packets[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch; ++k) packets[k] = slots.at(round + k).load(x);
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const auto slot = slots.at(round + k);
      if (!slot.empty()) f(round + k, slot, packets[k]);
    }
  }
}

// A packet as the 16 bytes that shared memory holds.
template <class T>
__device__ inline uint4 packet_bits(const Packet<T>& packet) {
  uint4 bits;
  std::memcpy(static_cast<void*>(&bits), packet.at, kPacketBytes);
  return bits;
}
template <class T>
__device__ inline Packet<T> packet_of(const uint4& bits) {
  Packet<T> packet;
  std::memcpy(packet.at, &bits, kPacketBytes);
  return packet;
}

// The values of a packet; `outside` past the end of the row.
template <class T>
struct Numbers {
  Accumulate<T> at[kPacket<T>];
};
template <class T, class Team>
__device__ inline Numbers<T> numbers(const RowSlot<T, Team>& slot, const Packet<T>& packet,
                                     Accumulate<T> outside) {
  Numbers<T> x;
#pragma unroll
  for (int j = 0; j < kPacket<T>; ++j) {
    x.at[j] = slot.has(j) ? widen(packet.at[j]) : outside;
  }
  return x;
}

template <class A>
inline constexpr A kLowest = -static_cast<A>(INFINITY);

// exp(from - to), the factor of a sum on a new maximum. Equal ones may be infinite.
template <class A>
__device__ inline A rescale(A from, A to) {
  return from == to ? A(1) : exp(from - to);
}

// What to subtract before exp. -inf entries are nothing to a sum that has met no number yet.
template <class A>
__device__ inline A subtrahend(A highest) {
  return highest == kLowest<A> ? A(0) : highest;
}

// Without a number both are what an empty row has: -inf and 0; from them comes NaN.
template <class A>
struct OnlineSum {
  A highest = kLowest<A>, sum = 0;

  template <int n>
  __device__ void add(const A (&x)[n]) {
    A top = highest;
#pragma unroll
    for (int j = 0; j < n; ++j) top = max(top, x[j]);
    const A base = subtrahend(top);
    A part = 0;
#pragma unroll
    for (int j = 0; j < n; ++j) part += exp(x[j] - base);
    sum = sum * rescale(highest, top) + part;
    highest = top;
  }
  template <class Team>
  __device__ OnlineSum total() const {
    const A top = Team::max(highest);
    return {top, Team::sum(sum * rescale(highest, top))};
  }
};

}  // namespace tilegrad::TILEGRAD_BACKEND
