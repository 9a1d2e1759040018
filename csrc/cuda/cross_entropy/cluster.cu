// SPDX-License-Identifier: MIT
// Rung 5: a cluster of blocks holds a row that is too long for one.
//
// Math:        as rung 4; the totals of all warps of the cluster (max, sum, soft parts) meet in
//              every block and are added there in one order: the same bits in every thread.
// Shapes:      logits (rows, classes), contiguous; classes as far as cluster_row says.
// Parallelism: 2, 4 or 8 blocks of 512 threads a row, each with a piece of it, two blocks a
//              multiprocessor; pieces beyond that room have 1024 threads. Soft targets and doubles
//              need so many registers that one block of 512 threads is alone.
// Memory:      1 read and 1 write of every logit, whose piece waits in shared memory (16 bytes a
//              lane, no bank conflict). A warp leaves 16 bytes of totals in each block: once a
//              row its stores are 2.0x, to peers, its loads of one member 4.0x the wavefronts.
//              Soft targets and weights are read twice.
// Limit:       rung 4 ended with a block's shared memory, or left one block alone there. This one
//              ends with eight of them: 416 K floats. Beyond, rung 3.
// Source:      Dao-AILab/quack, media/2025-07-10-membound-sol.md, for the cluster of a row.
#include "../cross_entropy_choice.hpp"
#include "../ptx/cluster.cuh"
#include "row.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

// The slots of a block's piece [first, end) of a row of n elements.
template <class T, class Team>
struct PieceSlots {
  int64_t first, end;
  bool packed, whole;

  __device__ int64_t rounds() const { return rounds_of<T, Team>(end - first); }
  template <bool kFull>
  __device__ RowSlot<T, Team, kFull> at(int64_t round) const {
    return slot_at<kFull, T, Team>(first, end, round, packed, whole);
  }
};

// The row's sums, from those of all threads of the cluster. `totals`: (blocks, warps) in each
// block.
template <class T, bool kSoft, int kThreads>
__device__ inline RowTotal<Accumulate<T>> total_cluster(RowSums<T, kSoft> sums,
                                                        RowTotal<Accumulate<T>>* totals) {
  using A = Accumulate<T>;
  using Warp = LaneTeam<kWarpSize>;
  constexpr int kWarps = kThreads / kWarpSize;
  const int lane = Warp::thread(), warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int blocks = cluster_size();
  const RowTotal<A> own = total_row<Warp>(sums);
  if (lane < blocks) cluster_peer(totals, lane)[cluster_rank() * kWarps + warp] = own;
  // Every warp's total is in every block, and every thread has read the target's logit, which a
  // gradient in place overwrites.
  cluster_sync();
  A top = kLowest<A>;
  for (int i = lane; i < blocks * kWarps; i += kWarpSize) top = larger(top, totals[i].highest);
  RowSums<T, kSoft> all;
  all.exponentials.highest = top = Warp::max(top);
  for (int i = lane; i < blocks * kWarps; i += kWarpSize) {
    RowTotal<A> part = totals[i];
    all.exponentials.sum += part.sum * rescale<T>(part.highest, top);
    if constexpr (kSoft) {
      RowSums<T, kSoft> moved;
      moved.mass = part.mass;
      moved.rest = part.rest;
      moved.move(part.highest, top);
      all.mass += moved.mass;
      all.rest += moved.rest;
    }
  }
  return total_row<Warp>(all);
}

// Whether a thread needs more registers than a full multiprocessor has for it.
template <class T, bool kSoft>
constexpr bool kWide = kSoft || sizeof(T) == 8;

template <class T, bool kSoft, int kThreads>
__global__ void __launch_bounds__(kThreads,
                                  kWide<T, kSoft> || kThreads == kLargeClusterBlock ? 1 : 2)
    cross_entropy_cluster_kernel(CrossEntropyArguments<T> a, int64_t piece) {
  grid_dependency_wait();
  using A = Accumulate<T>;
  using Team = BlockTeam<kThreads>;  // its threads; its reductions are not used
  constexpr int kBatch = kWide<T, kSoft> ? 2 : 4;
  const int64_t classes = a.shape.classes, blocks = cluster_size();
  const int64_t first = std::min(cluster_rank() * piece, classes);
  const bool packed = classes % kPacket<T> == 0;
  const PieceSlots<T, Team> slots{first, std::min(first + piece, classes), packed,
                                  packed && a.aligned};
  auto* totals = dynamic_smem<RowTotal<A>>();  // (2, blocks, warps): of this row and of the next
  constexpr int kTotals = kMostBlocks * kThreads / kWarpSize;
  static_assert(2 * kTotals * sizeof(RowTotal<A>) == cluster_totals_bytes(kThreads, sizeof(T)));
  // (rounds, kThreads): a thread's own column
  uint4* held = reinterpret_cast<uint4*>(totals + 2 * kTotals) + threadIdx.x;
  const int64_t rows_at_once = gridDim.x / blocks;
  int64_t row = blockIdx.x / blocks;
  int turn = 0;
  bool all_run = false;
  cluster_arrive();
  for (; row < a.rows; row += rows_at_once) {
    const CrossEntropyRow<T> r = find_row(a, row, row * classes, 1);
    RowSums<T, kSoft> sums;
    if (r.counts()) {
      for_row<kBatch>(slots, r.x, [&](int64_t i, const auto& slot, const Packet<T>& packet) {
        held[i * kThreads] = packet_bits(packet);
        add_packet(sums, a, r, slot, packet);
      });
    }
    // A block's shared memory is there once it runs.
    if (!all_run) cluster_wait();
    all_run = true;
    RowEnd<A> end{};
    if (r.counts()) {  // the same for the whole cluster
      // The totals of the last row but one have been read: their readers have met since.
      end = end_row(r, total_cluster<T, kSoft, kThreads>(sums, totals + turn * kTotals));
      turn = 1 - turn;
    }
    if (r.dx != nullptr) store_held<kSoft, kThreads>(a, r, end, slots, held);
    if (cluster_rank() == 0 && threadIdx.x == 0) store_loss(a, r, row, end.loss);
  }
}

template <class T, bool kSoft, int kThreads>
void start(Context& context, const CrossEntropyArguments<T>& a, const ClusterRow& row) {
  LaunchShape shape;
  const int64_t most = std::numeric_limits<int32_t>::max() / kMostBlocks;
  shape.cluster = static_cast<unsigned>(row.blocks);
  shape.grid = static_cast<unsigned>(std::min(a.rows, most)) * shape.cluster;
  shape.block = kThreads;
  shape.dynamic_bytes = row.shared_bytes;
  launch_next(cross_entropy_cluster_kernel<T, kSoft, kThreads>, shape, context, a, row.piece);
}

}  // namespace

template <class T>
bool cross_entropy_cluster(Context& context, const CrossEntropyArguments<T>& a) {
  const DeviceInfo& device = device_info();
  const ClusterRow row = cluster_row(a.shape.classes, sizeof(T), device.shared_bytes);
  if (device.compute_capability < 90 || row.blocks == 0) return false;
  if (a.soft) {
    start<T, true, kClusterBlock>(context, a, row);
    return true;
  }
  if constexpr (!kWide<T, false>) {
    if (row.threads == kLargeClusterBlock) {
      start<T, false, kLargeClusterBlock>(context, a, row);
      return true;
    }
  }
  start<T, false, kClusterBlock>(context, a, row);
  return true;
}

template bool cross_entropy_cluster(Context&, const CrossEntropyArguments<float>&);
template bool cross_entropy_cluster(Context&, const CrossEntropyArguments<double>&);
template bool cross_entropy_cluster(Context&, const CrossEntropyArguments<bfloat16>&);
template bool cross_entropy_cluster(Context&, const CrossEntropyArguments<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
