// SPDX-License-Identifier: MIT
// Losses with one value a row: who has a row, where its loss goes, the factor of its gradient.
//
// Parallelism: a warp has a row of up to kWarpRow bytes, a block of 256 threads a longer one; a
//              thread reads packets of 16 bytes of it (online_softmax.cuh). Rows are walked
//              grid-stride.
// Memory:      a row's loss, where losses are added up, is written and read once as a double.
#pragma once

#include "online_softmax.cuh"
#include "row_sums.cuh"
//
#include "../row_losses.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

inline constexpr int kRowThreads = 256;
inline constexpr int64_t kWarpRow = 8192;

template <class T>
struct RowOutput {
  T* loss;                    // a row's loss goes here, or
  double* sums;               // here, or nowhere
  const T* grad_output;       // null for one
  bool one_number;            // grad_output and the loss are one number
  const double* denominator;  // what a mean divides by, or null:
  double divisor;
  int64_t rows;

  __device__ Accumulate<T> factor(int64_t row) const {
    const double g =
        grad_output == nullptr ? 1.0 : static_cast<double>(grad_output[one_number ? 0 : row]);
    return static_cast<Accumulate<T>>(g / (denominator == nullptr ? divisor : *denominator));
  }
  __device__ void put(int64_t row, Accumulate<T> value) const {
    if (loss != nullptr) loss[row] = static_cast<T>(value);
    if (sums != nullptr) sums[row] = static_cast<double>(value);
  }
};

// Takes workspace: open a scope before.
template <class T>
RowOutput<T> row_output(Context& context, T* loss, const T* grad_output, int64_t rows,
                        Reduction reduction, const double* denominator = nullptr) {
  const bool one_number = reduction != Reduction::none;
  double* sums = one_number && loss != nullptr ? context.workspace->take<double>(rows) : nullptr;
  const double divisor = reduction == Reduction::mean ? static_cast<double>(rows) : 1.0;
  return {one_number ? nullptr : loss, sums, grad_output, one_number, denominator, divisor, rows};
}

// Adds up the losses that a kernel has put.
template <class T>
void finish_rows(Context& context, T* loss, const RowOutput<T>& out) {
  if (out.sums == nullptr) return;
  sum_rows(context, Element<double>{out.sums}, StoreLoss<T>{loss, out.denominator, out.divisor},
           out.rows);
}

// f(row) for the rows of the thread's team.
template <class Team, class F>
__device__ inline void for_team_rows(int64_t rows, F f) {
  constexpr int kTeams = kRowThreads / Team::kThreads;
  const int64_t team = threadIdx.x / Team::kThreads;
  for (int64_t row = int64_t{blockIdx.x} * kTeams + team; row < rows;
       row += int64_t{gridDim.x} * kTeams) {
    f(row);
  }
}

// f(slot) for the slots of a row that the thread owns.
template <class T, class Team, class F>
__device__ inline void for_row_slots(const RowSlots<T, Team>& slots, F f) {
  const int64_t rounds = slots.rounds();
  for (int64_t round = 0; round < rounds; ++round) {
    const RowSlot<T, Team> slot = slots.at(round);
    if (!slot.empty()) f(slot);
  }
}

// Whether the element is in a slot of the thread: then the thread alone writes it.
template <class T, class Team>
__device__ inline bool owns(const RowSlots<T, Team>& slots, int64_t index) {
  const RowSlot<T, Team> slot = slots.at(index / (Team::kThreads * kPacket<T>));
  const int hit = slot.find(index);
  bool mine = false;
#pragma unroll
  for (int j = 0; j < kPacket<T>; ++j) mine = mine || (slot.has(j) && slot.step(j) == hit);
  return mine;
}

template <class P>
TILEGRAD_HOST_DEVICE inline P* row_at(P* p, int64_t offset) {
  return p == nullptr ? nullptr : p + offset;
}

using WarpRow = LaneTeam<kWarpSize>;
using BlockRow = BlockTeam<kRowThreads>;

// Starts the kernel for warps or for blocks. aligned: every pointer to rows.
template <class T, class Arguments>
void launch_rows(Context& context, void (*warps)(Arguments, RowOutput<T>, RowSlots<T, WarpRow>),
                 void (*blocks)(Arguments, RowOutput<T>, RowSlots<T, BlockRow>),
                 const Arguments& arguments, const RowOutput<T>& out, int64_t size, bool aligned) {
  const bool short_row = size * static_cast<int64_t>(sizeof(T)) <= kWarpRow;
  const int64_t per_block = short_row ? kRowThreads / kWarpSize : 1;
  const auto grid =
      static_cast<unsigned>(std::min<int64_t>((out.rows + per_block - 1) / per_block, INT32_MAX));
  if (short_row) {
    launch_next(warps, grid, kRowThreads, 0, context, arguments, out,
                row_slots<T, WarpRow>(size, aligned));
  } else {
    launch_next(blocks, grid, kRowThreads, 0, context, arguments, out,
                row_slots<T, BlockRow>(size, aligned));
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
