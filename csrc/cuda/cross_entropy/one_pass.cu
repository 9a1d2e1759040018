// SPDX-License-Identifier: MIT
// Rung 4: one pass; the row waits on chip for its sum, loss and gradient leave together.
//
// Math:        online softmax as the packets arrive (rung 2), then the gradient of what was kept.
// Shapes:      logits (rows, classes), contiguous; classes as far as held_row says.
// Parallelism: by length: 8 lanes a row (4 rows a warp), a warp a row, a block of 256 or 512
//              threads a row. A thread keeps its own packets, so none is waited for but the sums.
// Memory:      1 read and 1 write of every logit: 8 bytes an element of float32. Held in registers
//              up to 2 KB, beyond in dynamic shared memory (16 bytes a lane, no bank conflict).
//              Soft targets and weights are read twice.
// Limit:       rung 3 read a row twice. This one moves the least there is; a row longer than shared
//              memory (56 K floats of 227 KB) is rung 3's.
// Source:      Dao-AILab/quack, media/2025-07-10-membound-sol.md, for the row on chip.
#include "../cross_entropy_choice.hpp"
#include "row.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kWarpThreads = 128;
constexpr int kBatch = 4;

// Rows in registers: (kPackets, kLanes) packets a row.
template <bool kFull, bool kSoft, int kPackets, class T, int kLanes>
__device__ inline void hold_rows(const CrossEntropyArguments<T>& a,
                                 const RowSlots<T, LaneTeam<kLanes>>& slots) {
  using Team = LaneTeam<kLanes>;
  constexpr int kRowsPerBlock = kWarpThreads / kLanes;
  const int64_t rows_at_once = int64_t{gridDim.x} * kRowsPerBlock;
  const int in_block = static_cast<int>(threadIdx.x) / kLanes;
  for (int64_t first = int64_t{blockIdx.x} * kRowsPerBlock; first < a.rows; first += rows_at_once) {
    // A warp's lanes go through the reductions together, those without a row too.
    const int64_t row = first + in_block;
    const bool exists = row < a.rows;
    CrossEntropyRow<T> r{};
    r.target = kIgnoredClass;
    if (exists) r = find_row(a, row, row * slots.n, 1);
    Packet<T> held[kPackets] = {};
    RowSums<T, kSoft> sums;
    if (r.counts()) {
#pragma unroll
      for (int k = 0; k < kPackets; ++k) held[k] = slots.template at<kFull>(k).load(r.x);
#pragma unroll
      for (int k = 0; k < kPackets; ++k) {
        const auto slot = slots.template at<kFull>(k);
        if (!slot.empty()) add_packet(sums, a, r, slot, held[k]);
      }
    }
    const auto end = end_row<Team>(r, sums);
    // Every lane has read the target's logit, which a gradient in place overwrites.
    __syncwarp();
    if (r.dx != nullptr) {
#pragma unroll
      for (int k = 0; k < kPackets; ++k) {
        const auto slot = slots.template at<kFull>(k);
        if (!slot.empty()) store_gradient<kSoft>(a, r, end, slot, held[k]);
      }
    }
    if (exists && Team::thread() == 0) store_loss(a, r, row, end.loss);
  }
}

template <class T, bool kSoft, int kLanes, int kPackets>
__global__ void __launch_bounds__(kWarpThreads, 1)
    cross_entropy_one_pass_warp_kernel(CrossEntropyArguments<T> a,
                                       RowSlots<T, LaneTeam<kLanes>> slots) {
  grid_dependency_wait();
  if (slots.packed) {
    hold_rows<true, kSoft, kPackets>(a, slots);
  } else {
    hold_rows<false, kSoft, kPackets>(a, slots);
  }
}

template <class T, bool kSoft, int kThreads>
__global__ void __launch_bounds__(kThreads, 1)
    cross_entropy_one_pass_block_kernel(CrossEntropyArguments<T> a,
                                        RowSlots<T, BlockTeam<kThreads>> slots) {
  grid_dependency_wait();
  using A = Accumulate<T>;
  using Team = BlockTeam<kThreads>;
  uint4* held = dynamic_smem<uint4>() + threadIdx.x;  // (rounds, kThreads): a thread's own column
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const CrossEntropyRow<T> r = find_row(a, row, row * slots.n, 1);
    RowSums<T, kSoft> sums;
    if (r.counts()) {
      for_row<kBatch>(slots, r.x, [&](int64_t i, const auto& slot, const Packet<T>& packet) {
        held[i * kThreads] = packet_bits(packet);
        add_packet(sums, a, r, slot, packet);
      });
    }
    // Its barriers also keep a gradient in place from the target's logit until all have read it.
    RowEnd<A> end{};
    if (r.counts()) end = end_row<Team>(r, sums);  // the same for the whole block
    if (r.dx != nullptr) store_held<kSoft, kThreads>(a, r, end, slots, held);
    if (Team::thread() == 0) store_loss(a, r, row, end.loss);
  }
}

template <bool kSoft, class T>
bool start(Context& context, const CrossEntropyArguments<T>& a) {
  const HeldRow held = held_row(a.shape.classes, sizeof(T), device_info().shared_bytes);
  switch (held.hold) {
    case Hold::registers_8_lanes:
      launch_rows(cross_entropy_one_pass_warp_kernel<T, kSoft, 8, 1>, context, a, kWarpThreads / 8,
                  kWarpThreads, 0);
      return true;
    case Hold::registers_warp:
      launch_rows(cross_entropy_one_pass_warp_kernel<T, kSoft, kWarpSize, 1>, context, a,
                  kWarpThreads / kWarpSize, kWarpThreads, 0);
      return true;
    case Hold::registers_warp_deep:
      launch_rows(cross_entropy_one_pass_warp_kernel<T, kSoft, kWarpSize, 4>, context, a,
                  kWarpThreads / kWarpSize, kWarpThreads, 0);
      return true;
    case Hold::shared_block:
      launch_rows(cross_entropy_one_pass_block_kernel<T, kSoft, kSmallBlock>, context, a, 1,
                  kSmallBlock, held.shared_bytes);
      return true;
    case Hold::shared_block_large:
      launch_rows(cross_entropy_one_pass_block_kernel<T, kSoft, kLargeBlock>, context, a, 1,
                  kLargeBlock, held.shared_bytes);
      return true;
    case Hold::none:
      break;
  }
  return false;
}

}  // namespace

template <class T>
bool cross_entropy_one_pass(Context& context, const CrossEntropyArguments<T>& a) {
  return a.soft ? start<true>(context, a) : start<false>(context, a);
}

template bool cross_entropy_one_pass(Context&, const CrossEntropyArguments<float>&);
template bool cross_entropy_one_pass(Context&, const CrossEntropyArguments<double>&);
template bool cross_entropy_one_pass(Context&, const CrossEntropyArguments<bfloat16>&);
template bool cross_entropy_one_pass(Context&, const CrossEntropyArguments<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
