// SPDX-License-Identifier: MIT
// softmax forward and backward as the kernels of softmax.cu see them: what is read, what is summed
// over a row, what an element becomes. Each formula stands here once for all kernels.
#pragma once

#include "online_softmax.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// What a pass reads, sums over a row, and makes of an element.
template <class T_>
struct SoftmaxForward {
  using T = T_;
  using A = Accumulate<T>;
  using Sums = OnlineSum<T>;
  static constexpr int kInputs = 1;

  T* result;
  const T* inputs[kInputs];  // x
  bool log_of;

  __device__ static A outside() { return kLowest<A>; }
  template <int n>
  __device__ void add(Sums& sums, const A (&in)[kInputs][n]) const {
    sums.add(in[0]);
  }
  template <class Team>
  __device__ Sums total(const Sums& sums) const {
    const Sums all = sums.template total<Team>();
    return {all.highest, log_of ? log(all.sum) : A(1) / all.sum};
  }
  __device__ A value(A x, A, const Sums& total) const {
    const A z = x - total.highest;
    return log_of ? z - total.sum : exp_of_negative<T>(z) * total.sum;
  }
};

template <class T_>
struct SoftmaxBackward {
  using T = T_;
  using A = Accumulate<T>;
  using Sums = A;
  static constexpr int kInputs = 2;

  T* result;
  const T* inputs[kInputs];  // dy, y
  bool log_of;

  __device__ static A outside() { return A(0); }
  template <int n>
  __device__ void add(Sums& sum, const A (&in)[kInputs][n]) const {
    A part = 0;
#pragma unroll
    for (int j = 0; j < n; ++j) part += log_of ? in[0][j] : in[0][j] * in[1][j];
    sum += part;
  }
  template <class Team>
  __device__ Sums total(const Sums& sum) const {
    return Team::sum(sum);
  }
  __device__ A value(A dy, A y, const Sums& sum) const {
    return log_of ? dy - exp(y) * sum : y * (dy - sum);
  }
};

// The packets of a slot of every input.
template <class Op>
struct SoftmaxInputs {
  Packet<typename Op::T> packets[Op::kInputs];

  template <class Slot>
  __device__ void load(const Op& op, const Slot& slot, int64_t offset) {
#pragma unroll
    for (int i = 0; i < Op::kInputs; ++i) packets[i] = slot.load(op.inputs[i] + offset);
  }
  template <class Slot>
  __device__ void add_to(typename Op::Sums& sums, const Op& op, const Slot& slot) const {
    typename Op::A in[Op::kInputs][kPacket<typename Op::T>];
#pragma unroll
    for (int i = 0; i < Op::kInputs; ++i) {
      const auto x = numbers(slot, packets[i], Op::outside());
#pragma unroll
      for (int j = 0; j < kPacket<typename Op::T>; ++j) in[i][j] = x.at[j];
    }
    op.add(sums, in);
  }
  template <class Slot>
  __device__ void store(const Op& op, const Slot& slot, int64_t offset,
                        const typename Op::Sums& total) const {
    using T = typename Op::T;
    const Numbers<T> first = widen(packets[0]), last = widen(packets[Op::kInputs - 1]);
    Numbers<T> result;
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) result.at[j] = op.value(first.at[j], last.at[j], total);
    slot.store(op.result + offset, narrow(result));
  }
};

}  // namespace tilegrad::TILEGRAD_BACKEND
