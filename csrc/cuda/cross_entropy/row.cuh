// SPDX-License-Identifier: MIT
// One row of cross_entropy, the same for every rung: its target, its sums, its loss and gradient.
//
// Math: with target mass b_c (hit h at class t, soft part s_c), z = x - max, S = sum exp(z),
//       A = sum b_c:  loss = A log S - sum_c b_c z_c,  dx_c = g (A exp(z_c) / S - b_c).
//       For b >= 0 both terms of the loss are >= 0: a common offset of x loses nothing. So the
//       sum of b z is moved to a new maximum m' as the sum of exp is: it gains A (m - m') <= 0.
// Memory: the logit at the target is a gather, one sector a row, whatever the rung.
#pragma once

#include <algorithm>
#include <limits>

#include "../class_index.cuh"
#include "../online_softmax.cuh"
#include "problem.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

// Kernels name one block a multiprocessor as the least in __launch_bounds__: without it ptxas
// aims at more of them on sm_90 and spills.

inline constexpr int64_t kNoClass = -1;  // the target is a distribution

template <class T>
struct CrossEntropyRow {
  const T* x;
  const T* q;  // probabilities, or null
  T* dx;       // or null
  int64_t target;
  Accumulate<T> at_target, hit, scale;

  __device__ bool counts() const { return target >= kNoClass; }
};

// The row whose classes are at offset, offset + stride, ...; all of a team's threads call it, and
// read the target's logit before any of them writes a gradient in place.
template <class T>
__device__ inline CrossEntropyRow<T> find_row(const CrossEntropyArguments<T>& a, int64_t row,
                                              int64_t offset, int64_t stride) {
  using A = Accumulate<T>;
  CrossEntropyRow<T> r{};
  r.x = a.logits + offset;
  r.q = a.probabilities == nullptr ? nullptr : a.probabilities + offset;
  r.dx = a.dlogits == nullptr ? nullptr : a.dlogits + offset;
  r.target = a.indices.data == nullptr ? kNoClass
                                       : class_at(a.indices, row, a.shape.classes, a.ignore_index);
  if (r.target >= 0) {
    r.at_target = widen(r.x[r.target * stride]);
    r.hit = a.weight == nullptr ? a.keep : a.keep * widen(a.weight[r.target]);
  }
  r.scale = a.scale != nullptr         ? *a.scale
            : a.grad_output != nullptr ? widen(a.grad_output[row * a.grad_step])
                                       : A(1);
  return r;
}

// The soft shares of the classes of a slot.
template <class Slot, class T>
__device__ inline Numbers<T> soft_mass(const CrossEntropyArguments<T>& a,
                                       const CrossEntropyRow<T>& r, const Slot& slot) {
  Numbers<T> mass;
#pragma unroll
  for (Accumulate<T>& share : mass.at) share = a.floor;
  if (r.q != nullptr) {
    const Numbers<T> q = widen(slot.load(r.q));
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) mass.at[j] = fma(a.keep, q.at[j], a.floor);
  }
  if (a.weight != nullptr) {
    const Numbers<T> weight = widen(slot.load(a.weight));
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) mass.at[j] *= weight.at[j];
  }
  return mass;
}

// sum: S; mass and rest: the soft part of A and of sum b z, where kSoft.
template <class T, bool kSoft>
struct RowSums {
  using A = Accumulate<T>;
  OnlineSum<T> exponentials;
  A mass = 0, rest = 0;

  // To a higher maximum. Without a number yet, rest is 0, or infinite for good.
  __device__ void move(A from, A to) {
    if (from != to && from != kLowest<A>) rest += mass * (from - to);
  }
  // x is -inf where there is no class; get() gives the shares b.
  template <int n, class Has, class Mass>
  __device__ void add(const A (&x)[n], Has has, Mass get) {
    const A before = exponentials.highest;
    exponentials.add(x);
    if constexpr (kSoft) {
      move(before, exponentials.highest);
      const A base = subtrahend(exponentials.highest);
      const auto b = get();
      A part_mass = 0, part_rest = 0;
#pragma unroll
      for (int j = 0; j < n; ++j) {
        if (!has(j)) continue;
        part_mass += b.at[j];
        part_rest += b.at[j] * (x[j] - base);
      }
      mass += part_mass;
      rest += part_rest;
    }
  }
};

template <class T, bool kSoft, class Slot>
__device__ inline void add_packet(RowSums<T, kSoft>& sums, const CrossEntropyArguments<T>& a,
                                  const CrossEntropyRow<T>& r, const Slot& slot,
                                  const Packet<T>& packet) {
  const Numbers<T> x = numbers(slot, packet, kLowest<Accumulate<T>>);
  sums.add(x.at, [&](int j) { return slot.has(j); }, [&] { return soft_mass(a, r, slot); });
}

// The sums of a whole row.
template <class A>
struct alignas(4 * sizeof(A)) RowTotal {
  A highest, sum, mass, rest;
};

// Every thread of the team calls it, for any row, and has the same bits.
template <class Team, class T, bool kSoft>
__device__ inline RowTotal<Accumulate<T>> total_row(RowSums<T, kSoft> sums) {
  const OnlineSum<T> all = sums.exponentials.template total<Team>();
  if constexpr (!kSoft) return {all.highest, all.sum, 0, 0};
  sums.move(sums.exponentials.highest, all.highest);
  return {all.highest, all.sum, Team::sum(sums.mass), Team::sum(sums.rest)};
}

template <class A>
struct RowEnd {
  A highest, loss;
  A factor;  // of exp(x - highest) in the gradient
  A share;   // what the target's class has besides
};

// Of a row that counts.
template <class T>
__device__ inline RowEnd<Accumulate<T>> end_row(const CrossEntropyRow<T>& r,
                                                const RowTotal<Accumulate<T>>& all) {
  using A = Accumulate<T>;
  const A mass = r.hit + all.mass;
  const A rest = (r.target >= 0 ? r.hit * (r.at_target - all.highest) : A(0)) + all.rest;
  return {all.highest, mass * log(all.sum) - rest, r.scale * mass / all.sum, r.hit * r.scale};
}
template <class Team, class T, bool kSoft>
__device__ inline RowEnd<Accumulate<T>> end_row(const CrossEntropyRow<T>& r,
                                                const RowSums<T, kSoft>& sums) {
  return end_row(r, total_row<Team>(sums));
}

template <class T>
__device__ inline void store_loss(const CrossEntropyArguments<T>& a, const CrossEntropyRow<T>& r,
                                  int64_t row, Accumulate<T> loss) {
  using A = Accumulate<T>;
  if (r.target == kIgnoredClass) loss = A(0);
  if (r.target == kBadClass) loss = static_cast<A>(NAN);
  // Without classes there is nothing to lose.
  if (r.target == kNoClass && a.shape.classes == 0) loss = A(0);
  if (a.loss != nullptr) a.loss[row] = narrow<T>(loss);
  if (a.row_loss != nullptr) a.row_loss[row] = loss;
}

template <bool kSoft, class T, class Slot>
__device__ inline void store_gradient(const CrossEntropyArguments<T>& a,
                                      const CrossEntropyRow<T>& r, const RowEnd<Accumulate<T>>& end,
                                      const Slot& slot, const Packet<T>& packet) {
  using A = Accumulate<T>;
  if (!r.counts()) {
    slot.store(r.dx, Packet<T>{});
    return;
  }
  Numbers<T> g = widen(packet);
#pragma unroll
  for (A& x : g.at) x = exp_of_negative<T>(x - end.highest) * end.factor;
  if constexpr (kSoft) {
    const Numbers<T> mass = soft_mass(a, r, slot);
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) g.at[j] -= mass.at[j] * r.scale;
  }
  // One slot of a row has the target.
  const int hit = slot.find(r.target);
  if (hit >= 0) [[unlikely]] {
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) {
      if (slot.step(j) == hit) g.at[j] -= end.share;
    }
  }
  slot.store(r.dx, narrow(g));
}

// The gradient of a row that a block holds in shared memory.
template <bool kFull, bool kSoft, int kThreads, class Slots, class T>
__device__ inline void store_held_as(const CrossEntropyArguments<T>& a, const CrossEntropyRow<T>& r,
                                     const RowEnd<Accumulate<T>>& end, const Slots& slots,
                                     const uint4* held) {
  const int64_t rounds = slots.rounds();
#pragma unroll 2
  for (int64_t i = 0; i < rounds; ++i) {
    const auto slot = slots.template at<kFull>(i);
    if (slot.empty()) break;
    store_gradient<kSoft>(a, r, end, slot,
                          r.counts() ? packet_of<T>(held[i * kThreads]) : Packet<T>{});
  }
}
template <bool kSoft, int kThreads, class Slots, class T>
__device__ inline void store_held(const CrossEntropyArguments<T>& a, const CrossEntropyRow<T>& r,
                                  const RowEnd<Accumulate<T>>& end, const Slots& slots,
                                  const uint4* held) {
  if (slots.packed) {
    store_held_as<true, kSoft, kThreads>(a, r, end, slots, held);
  } else {
    store_held_as<false, kSoft, kThreads>(a, r, end, slots, held);
  }
}

// Starts a kernel over all rows, so many to a block at a time.
template <class T, class Team>
void launch_rows(void (*kernel)(CrossEntropyArguments<T>, RowSlots<T, Team>), Context& context,
                 const CrossEntropyArguments<T>& a, int64_t rows_per_block, int threads,
                 size_t dynamic_bytes) {
  const int64_t blocks = (a.rows + rows_per_block - 1) / rows_per_block;
  const int64_t most = std::numeric_limits<int32_t>::max();
  launch_next(kernel, static_cast<unsigned>(std::min(blocks, most)), static_cast<unsigned>(threads),
              dynamic_bytes, context, a, row_slots<T, Team>(a.shape.classes, a.aligned));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
