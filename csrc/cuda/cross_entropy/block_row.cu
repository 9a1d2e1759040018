// SPDX-License-Identifier: MIT
// Rung 3: a block a row.
//
// Math:        online softmax, as in rung 2; the totals of the warps meet in shared memory.
// Shapes:      logits (rows, classes), contiguous; a row of any length.
// Parallelism: 512 threads a row, each with a packet of 16 bytes a round.
// Memory:      2 reads and 1 write of every logit: 12 bytes an element of float32. The second read
//              finds in L2 what the rows under way have not pushed out.
// Limit:       rung 2 had 2 KB of a row under way, this one has 32 KB. What is left is the second
//              read; and a short row leaves most of its 512 threads without an element, while
//              the barriers of the reductions cost as much as ever.
// Source:      a block a row as in NVIDIA/apex, xentropy; online as in rung 2.
#include "row.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kThreads = 512;
constexpr int kBatch = 4;

template <class T, bool kSoft>
__global__ void __launch_bounds__(kThreads, 1)
    cross_entropy_block_row_kernel(CrossEntropyArguments<T> a,
                                   RowSlots<T, BlockTeam<kThreads>> slots) {
  grid_dependency_wait();
  using A = Accumulate<T>;
  using Team = BlockTeam<kThreads>;
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const CrossEntropyRow<T> r = find_row(a, row, row * slots.n, 1);
    RowSums<T, kSoft> sums;
    if (r.counts()) {
      for_row<kBatch>(slots, r.x, [&](int64_t, const auto& slot, const Packet<T>& packet) {
        add_packet(sums, a, r, slot, packet);
      });
    }
    // Its barriers also keep a gradient in place from the target's logit until all have read it.
    RowEnd<A> end{};
    if (r.counts()) end = end_row<Team>(r, sums);  // the same for the whole block
    if (r.dx != nullptr) {
      for_row<kBatch>(slots, r.x, [&](int64_t, const auto& slot, const Packet<T>& packet) {
        store_gradient<kSoft>(a, r, end, slot, packet);
      });
    }
    if (Team::thread() == 0) store_loss(a, r, row, end.loss);
  }
}

}  // namespace

template <class T>
bool cross_entropy_block_row(Context& context, const CrossEntropyArguments<T>& a) {
  launch_rows(
      a.soft ? cross_entropy_block_row_kernel<T, true> : cross_entropy_block_row_kernel<T, false>,
      context, a, 1, kThreads, 0);
  return true;
}

template bool cross_entropy_block_row(Context&, const CrossEntropyArguments<float>&);
template bool cross_entropy_block_row(Context&, const CrossEntropyArguments<double>&);
template bool cross_entropy_block_row(Context&, const CrossEntropyArguments<bfloat16>&);
template bool cross_entropy_block_row(Context&, const CrossEntropyArguments<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
