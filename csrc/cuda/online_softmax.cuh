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
// kFull: it is known that they are packed, so a slot has all its elements or none.
template <class T, class Team, bool kFull = false>
struct RowSlot {
  int64_t base;
  int left;            // elements of the row from base on, cut to an int; none is below 1
  bool packed, whole;  // whole: one access moves it, if there is any

  __device__ int step(int j) const { return kFull || packed ? j : j * Team::kSideBySide; }
  // Of a slot that is not empty.
  __device__ bool has(int j) const { return kFull || (packed ? 0 : j * Team::kSideBySide) < left; }
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
      uint4 bits{};
      if (left > 0) bits = *reinterpret_cast<const uint4*>(p);
      std::memcpy(packet.at, &bits, kPacketBytes);
    } else if (kFull || packed) {
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
      if (left > 0) store_16(p, bits);
    } else if (kFull || packed) {
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

// The elements [first, end) of a row, `round` packets of each thread of the team on.
template <bool kFull, class T, class Team>
__device__ inline RowSlot<T, Team, kFull> slot_at(int64_t first, int64_t end, int64_t round,
                                                  bool packed, bool whole) {
  const int lane = Team::thread() % Team::kSideBySide;
  const int thread =
      (Team::thread() - lane) * kPacket<T> + (kFull || packed ? lane * kPacket<T> : lane);
  const int64_t base = first + round * (Team::kThreads * kPacket<T>)+thread;
  const int64_t left = end - base;
  if constexpr (kFull) return {base, left > 0 ? kPacket<T> : 0, true, whole};
  const int some = left > 0 ? static_cast<int>(left < INT32_MAX ? left : INT32_MAX) : 0;
  return {base, some, packed, whole};
}
template <class T, class Team>
__device__ inline int64_t rounds_of(int64_t n) {
  constexpr int64_t kRound = int64_t{Team::kThreads} * kPacket<T>;
  return (n + kRound - 1) / kRound;
}

// The slots of a row of n elements that a thread of a team owns, one a round.
template <class T, class Team>
struct RowSlots {
  int64_t n;
  bool packed;  // n fills whole packets: a thread's elements are neighbours
  bool whole;   // and every pointer is aligned: one access moves them

  __device__ int64_t rounds() const { return rounds_of<T, Team>(n); }
  template <bool kFull = false>
  __device__ RowSlot<T, Team, kFull> at(int64_t round) const {
    return slot_at<kFull, T, Team>(0, n, round, packed, whole);
  }
};

// `aligned`: every pointer that is read or written by it.
template <class T, class Team>
RowSlots<T, Team> row_slots(int64_t classes, bool aligned) {
  const bool packed = classes % kPacket<T> == 0;
  return {classes, packed, packed && aligned};
}

// f(round, slot, packet of x) for all slots of the thread; kBatch loads are under way at a time.
template <bool kFull, int kBatch, class Slots, class T, class F>
__device__ inline void for_row_of(const Slots& slots, const T* x, F f) {
  const int64_t rounds = slots.rounds();
  for (int64_t round = 0; round < rounds; round += kBatch) {
    Packet<T> packets[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch; ++k) packets[k] = slots.template at<kFull>(round + k).load(x);
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const auto slot = slots.template at<kFull>(round + k);
      if (!slot.empty()) f(round + k, slot, packets[k]);
    }
  }
}
template <int kBatch, class Slots, class T, class F>
__device__ inline void for_row(const Slots& slots, const T* x, F f) {
  if (slots.packed) {
    for_row_of<true, kBatch>(slots, x, f);
  } else {
    for_row_of<false, (kBatch + 1) / 2>(slots, x, f);
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
template <class Slot, class T>
__device__ inline Numbers<T> numbers(const Slot& slot, const Packet<T>& packet,
                                     Accumulate<T> outside) {
  Numbers<T> x = widen(packet);
#pragma unroll
  for (int j = 0; j < kPacket<T>; ++j) {
    if (!slot.has(j)) x.at[j] = outside;
  }
  return x;
}

template <class A>
inline constexpr A kLowest = -static_cast<A>(INFINITY);

// exp(from - to), the factor of a sum on a new maximum. Equal ones may be infinite.
template <class T>
__device__ inline Accumulate<T> rescale(Accumulate<T> from, Accumulate<T> to) {
  return from == to ? Accumulate<T>(1) : exp_of_negative<T>(from - to);
}

// What to subtract before exp. -inf entries are nothing to a sum that has met no number yet.
template <class A>
__device__ inline A subtrahend(A highest) {
  return highest == kLowest<A> ? A(0) : highest;
}

// Without a number both are what an empty row has: -inf and 0; from them comes NaN. A NaN is found
// in the sum alone.
template <class T>
struct OnlineSum {
  using A = Accumulate<T>;
  A highest = kLowest<A>, sum = 0;

  template <int n>
  __device__ void add(const A (&x)[n]) {
    A top = highest;
#pragma unroll
    for (int j = 0; j < n; ++j) top = larger(top, x[j]);
    const A base = subtrahend(top);
    A part = 0;
#pragma unroll
    for (int j = 0; j < n; ++j) part += exp_of_negative<T>(x[j] - base);
    sum = sum * rescale<T>(highest, top) + part;
    highest = top;
  }
  template <class Team>
  __device__ OnlineSum total() const {
    const A top = Team::max(highest);
    return {top, Team::sum(sum * rescale<T>(highest, top))};
  }
};

}  // namespace tilegrad::TILEGRAD_BACKEND
