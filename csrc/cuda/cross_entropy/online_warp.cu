// SPDX-License-Identifier: MIT
// Rung 2: the maximum and the sum in one read.
//
// Math:        online softmax: a sum of exp(x - m) becomes one of exp(x - m') by the factor
//              exp(m - m') when a larger maximum m' is met (online_softmax.cuh).
// Shapes:      logits (rows, classes), contiguous.
// Parallelism: a warp a row, as in rung 1; each lane has its own maximum until the row ends.
// Memory:      2 reads and 1 write of every logit: 12 bytes an element of float32; 4 packets a lane
//              are on their way at a time.
// Limit:       rung 1 read a row once more than this one. Here a row has 32 lanes only: long rows
//              have too few loads under way, and few rows leave most of the device idle.
// Source:      Milakov and Gimelshein, arXiv 1805.02867.
#include "row.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsPerBlock = kThreads / kWarpSize;
constexpr int kBatch = 4;

template <class T, bool kSoft>
__global__ void __launch_bounds__(kThreads, 1)
    cross_entropy_online_warp_kernel(CrossEntropyArguments<T> a,
                                     RowSlots<T, LaneTeam<kWarpSize>> slots) {
  grid_dependency_wait();
  using A = Accumulate<T>;
  using Team = LaneTeam<kWarpSize>;
  const int64_t rows_at_once = int64_t{gridDim.x} * kRowsPerBlock;
  const int64_t warp = threadIdx.x / kWarpSize;
  for (int64_t row = int64_t{blockIdx.x} * kRowsPerBlock + warp; row < a.rows;
       row += rows_at_once) {
    const CrossEntropyRow<T> r = find_row(a, row, row * slots.n, 1);
    RowSums<T, kSoft> sums;
    if (r.counts()) {
      for_row<kBatch>(slots, r.x, [&](int64_t, const auto& slot, const Packet<T>& packet) {
        add_packet(sums, a, r, slot, packet);
      });
    }
    const RowEnd<A> end = end_row<Team>(r, sums);
    // Every lane has read the target's logit, which a gradient in place overwrites.
    __syncwarp();
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
bool cross_entropy_online_warp(Context& context, const CrossEntropyArguments<T>& a) {
  launch_rows(a.soft ? cross_entropy_online_warp_kernel<T, true>
                     : cross_entropy_online_warp_kernel<T, false>,
              context, a, kRowsPerBlock, kThreads, 0);
  return true;
}

template bool cross_entropy_online_warp(Context&, const CrossEntropyArguments<float>&);
template bool cross_entropy_online_warp(Context&, const CrossEntropyArguments<double>&);
template bool cross_entropy_online_warp(Context&, const CrossEntropyArguments<bfloat16>&);
template bool cross_entropy_online_warp(Context&, const CrossEntropyArguments<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
