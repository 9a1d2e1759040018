// SPDX-License-Identifier: MIT
// Rung 1: three passes, as the formula is written.
//
// Math:        max x; then sum exp(x - max); then loss and gradient (row.cuh).
// Shapes:      logits (rows, classes), contiguous.
// Parallelism: a warp a row; neighbouring lanes read neighbouring packets of 16 bytes.
// Memory:      3 reads and 1 write of every logit: 16 bytes an element of float32. Short rows come
//              from cache the second and third time, long ones do not.
// Limit:       the naive kernel before it (a thread a row) is limited by uncoalesced reads; this
//              one by its bytes: the third read alone is a quarter of them.
// Source:      the definition; a warp a row as in karpathy/llm.c, softmax_forward.
#include "row.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsPerBlock = kThreads / kWarpSize;

template <class T, bool kSoft>
__global__ void __launch_bounds__(kThreads, 1)
    cross_entropy_three_pass_kernel(CrossEntropyArguments<T> a,
                                    RowSlots<T, LaneTeam<kWarpSize>> slots) {
  grid_dependency_wait();
  using A = Accumulate<T>;
  using Team = LaneTeam<kWarpSize>;
  const int64_t rows_at_once = int64_t{gridDim.x} * kRowsPerBlock;
  const int64_t warp = threadIdx.x / kWarpSize;
  for (int64_t row = int64_t{blockIdx.x} * kRowsPerBlock + warp; row < a.rows;
       row += rows_at_once) {
    const CrossEntropyRow<T> r = find_row(a, row, row * slots.n, 1);
    const int64_t rounds = slots.rounds();
    RowSums<T, kSoft> sums;
    A highest = kLowest<A>;
    if (r.counts()) {
      for (int64_t round = 0; round < rounds; ++round) {
        const auto slot = slots.at(round);
        const Numbers<T> x = numbers(slot, slot.load(r.x), kLowest<A>);
#pragma unroll
        for (int j = 0; j < kPacket<T>; ++j) highest = max(highest, x.at[j]);
      }
    }
    // With the maximum known no sum is ever rescaled.
    sums.exponentials.highest = Team::max(highest);
    if (r.counts()) {
      for (int64_t round = 0; round < rounds; ++round) {
        const auto slot = slots.at(round);
        add_packet(sums, a, r, slot, slot.load(r.x));
      }
    }
    const RowEnd<A> end = end_row<Team>(r, sums);
    // Every lane has read the target's logit, which a gradient in place overwrites.
    __syncwarp();
    if (r.dx != nullptr) {
      for (int64_t round = 0; round < rounds; ++round) {
        const auto slot = slots.at(round);
        store_gradient<kSoft>(a, r, end, slot, slot.load(r.x));
      }
    }
    if (Team::thread() == 0) store_loss(a, r, row, end.loss);
  }
}

}  // namespace

template <class T>
bool cross_entropy_three_pass(Context& context, const CrossEntropyArguments<T>& a) {
  launch_rows(
      a.soft ? cross_entropy_three_pass_kernel<T, true> : cross_entropy_three_pass_kernel<T, false>,
      context, a, kRowsPerBlock, kThreads, 0);
  return true;
}

template bool cross_entropy_three_pass(Context&, const CrossEntropyArguments<float>&);
template bool cross_entropy_three_pass(Context&, const CrossEntropyArguments<double>&);
template bool cross_entropy_three_pass(Context&, const CrossEntropyArguments<bfloat16>&);
template bool cross_entropy_three_pass(Context&, const CrossEntropyArguments<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
