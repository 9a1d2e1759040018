// SPDX-License-Identifier: MIT
// softmax, log_softmax and their backward passes.
//
// Math:        y = exp(x - max) / sum exp(x - max), or x - max - log(sum): no exponential exceeds
//              1.
//              Backward: dx = y (dy - sum dy y); with log, dx = dy - exp(y) sum dy.
// Shapes:      (outer, classes, inner); row (o, i) has its classes `inner` elements apart.
// Parallelism: inner = 1: 8 lanes, a warp or a block a row, by length (held_row). Else a block has
//              32 columns, and each of its 8 warps every eighth group of 4 classes of them.
// Memory:      1 read of every operand and 1 write where a row is held in registers (up to 2 KB);
//              longer rows and inner > 1 are read twice, the second time in part from L2.
//              Coalesced, for inner < 32 as far as cross_entropy/columns.cu says.
// Source:      Milakov and Gimelshein, arXiv 1805.02867.
#include <algorithm>

#include "../ops.hpp"
#include "cross_entropy_choice.hpp"
#include "softmax_ops.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kWarpThreads = 128;
constexpr int kBlockThreads = 256;
constexpr int kSlices = 8;
constexpr int kColumnThreads = kSlices * kWarpSize;
constexpr int kBatch = 4;  // packets of a thread under way at a time
constexpr int kGroup = 4;  // classes that a thread of a column loads at a time

// Rows in registers: (kPackets, kLanes) packets a row.
template <class Op, int kLanes, int kPackets>
__global__ void __launch_bounds__(kWarpThreads, 1)
    softmax_warp_kernel(Op op, RowSlots<typename Op::T, LaneTeam<kLanes>> slots, int64_t rows) {
  grid_dependency_wait();
  constexpr int kRowsPerBlock = kWarpThreads / kLanes;
  const int in_block = static_cast<int>(threadIdx.x) / kLanes;
  for (int64_t first = int64_t{blockIdx.x} * kRowsPerBlock; first < rows;
       first += int64_t{gridDim.x} * kRowsPerBlock) {
    // A warp's lanes go through the reductions together, those without a row too.
    const int64_t offset = (first + in_block) * slots.n;
    const bool exists = first + in_block < rows;
    SoftmaxInputs<Op> held[kPackets] = {};
    typename Op::Sums sums{};
#pragma unroll
    for (int k = 0; k < kPackets; ++k) {
      if (exists) held[k].load(op, slots.at(k), offset);
    }
#pragma unroll
    for (int k = 0; k < kPackets; ++k) {
      if (exists && !slots.at(k).empty()) held[k].add_to(sums, op, slots.at(k));
    }
    const auto total = op.template total<LaneTeam<kLanes>>(sums);
#pragma unroll
    for (int k = 0; k < kPackets; ++k) {
      if (exists && !slots.at(k).empty()) held[k].store(op, slots.at(k), offset, total);
    }
  }
}

template <class Op>
__global__ void __launch_bounds__(kBlockThreads, 1)
    softmax_block_kernel(Op op, RowSlots<typename Op::T, BlockTeam<kBlockThreads>> slots,
                         int64_t rows) {
  grid_dependency_wait();
  const int64_t rounds = slots.rounds();
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t offset = row * slots.n;
    typename Op::Sums sums{};
    for (int64_t round = 0; round < rounds; round += kBatch) {
      SoftmaxInputs<Op> in[kBatch];
#pragma unroll
      for (int k = 0; k < kBatch; ++k) in[k].load(op, slots.at(round + k), offset);
#pragma unroll
      for (int k = 0; k < kBatch; ++k) {
        if (!slots.at(round + k).empty()) in[k].add_to(sums, op, slots.at(round + k));
      }
    }
    const auto total = op.template total<BlockTeam<kBlockThreads>>(sums);
    for (int64_t round = 0; round < rounds; round += kBatch) {
      SoftmaxInputs<Op> in[kBatch];
#pragma unroll
      for (int k = 0; k < kBatch; ++k) in[k].load(op, slots.at(round + k), offset);
#pragma unroll
      for (int k = 0; k < kBatch; ++k) {
        if (!slots.at(round + k).empty()) {
          in[k].store(op, slots.at(round + k), offset, total);
        }
      }
    }
  }
}

template <class Op>
__global__ void __launch_bounds__(kColumnThreads, 1)
    softmax_columns_kernel(Op op, int64_t classes, int64_t inner, int64_t rows) {
  grid_dependency_wait();
  using A = typename Op::A;
  const int column = static_cast<int>(threadIdx.x) % kWarpSize;
  const int slice = static_cast<int>(threadIdx.x) / kWarpSize;
  for (int64_t first = int64_t{blockIdx.x} * kWarpSize; first < rows;
       first += int64_t{gridDim.x} * kWarpSize) {
    // A column beyond the last takes part in the barriers only.
    const int64_t row = first + column;
    const int64_t end = row < rows ? classes : 0;
    const int64_t offset = row / inner * classes * inner + row % inner;
    typename Op::Sums sums{};
    for (int64_t begin = slice * kGroup; begin < end; begin += kSlices * kGroup) {
      A in[Op::kInputs][kGroup];
#pragma unroll
      for (int j = 0; j < kGroup; ++j) {
#pragma unroll
        for (int i = 0; i < Op::kInputs; ++i) {
          in[i][j] =
              begin + j < end ? widen(op.inputs[i][offset + (begin + j) * inner]) : Op::outside();
        }
      }
      op.add(sums, in);
    }
    const auto total = op.template total<ColumnTeam<kSlices>>(sums);
    for (int64_t begin = slice * kGroup; begin < end; begin += kSlices * kGroup) {
#pragma unroll
      for (int j = 0; j < kGroup; ++j) {
        if (begin + j >= end) continue;
        const int64_t at = offset + (begin + j) * inner;
        op.result[at] = narrow<typename Op::T>(
            op.value(widen(op.inputs[0][at]), widen(op.inputs[Op::kInputs - 1][at]), total));
      }
    }
  }
}

unsigned blocks_of(int64_t rows, int64_t per_block) {
  return static_cast<unsigned>(std::min<int64_t>((rows + per_block - 1) / per_block, INT32_MAX));
}

template <int kLanes, int kPackets, class Op>
void start_warps(Context& context, const Op& op, int64_t rows, int64_t classes, bool aligned) {
  launch_next(softmax_warp_kernel<Op, kLanes, kPackets>, blocks_of(rows, kWarpThreads / kLanes),
              kWarpThreads, 0, context, op,
              row_slots<typename Op::T, LaneTeam<kLanes>>(classes, aligned), rows);
}

template <class Op>
void start(Context& context, const Op& op, ClassShape shape) {
  const int64_t rows = shape.outer * shape.inner;
  const bool aligned = packet_aligned(op.result, op.inputs[0], op.inputs[Op::kInputs - 1]);
  if (shape.classes == 0) return;
  if (shape.inner != 1) {
    launch_next(softmax_columns_kernel<Op>, blocks_of(rows, kWarpSize), kColumnThreads, 0, context,
                op, shape.classes, shape.inner, rows);
    return;
  }
  switch (held_row(shape.classes, sizeof(typename Op::T), 0).hold) {
    case Hold::registers_8_lanes:
      return start_warps<8, 1>(context, op, rows, shape.classes, aligned);
    case Hold::registers_warp:
      return start_warps<kWarpSize, 1>(context, op, rows, shape.classes, aligned);
    case Hold::registers_warp_deep:
      return start_warps<kWarpSize, 4>(context, op, rows, shape.classes, aligned);
    default:
      launch_next(softmax_block_kernel<Op>, blocks_of(rows, 1), kBlockThreads, 0, context, op,
                  row_slots<typename Op::T, BlockTeam<kBlockThreads>>(shape.classes, aligned),
                  rows);
  }
}

}  // namespace

template <class T>
void softmax(Context& context, T* y, const T* x, ClassShape shape, bool log) {
  start(context, SoftmaxForward<T>{y, {x}, log}, shape);
}

template <class T>
void softmax_backward(Context& context, T* dx, const T* dy, const T* y, ClassShape shape,
                      bool log) {
  start(context, SoftmaxBackward<T>{dx, {dy, y}, log}, shape);
}

template void softmax(Context&, float*, const float*, ClassShape, bool);
template void softmax(Context&, double*, const double*, ClassShape, bool);
template void softmax(Context&, bfloat16*, const bfloat16*, ClassShape, bool);
template void softmax(Context&, float16*, const float16*, ClassShape, bool);
template void softmax_backward(Context&, float*, const float*, const float*, ClassShape, bool);
template void softmax_backward(Context&, double*, const double*, const double*, ClassShape, bool);
template void softmax_backward(Context&, bfloat16*, const bfloat16*, const bfloat16*, ClassShape,
                               bool);
template void softmax_backward(Context&, float16*, const float16*, const float16*, ClassShape,
                               bool);

}  // namespace tilegrad::TILEGRAD_BACKEND
