// SPDX-License-Identifier: MIT
// Which rung of the cross-entropy ladder a problem gets, and how a row is held on chip: pure
// functions of shape, element size and shared memory. Pointers have no say, so that alignment
// cannot change the bits.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tilegrad::TILEGRAD_BACKEND {

// How a row is held while its maximum and sum are found.
enum class Hold {
  registers_8_lanes,    // a packet of 16 bytes in each of 8 lanes: 4 rows a warp
  registers_warp,       // a packet a lane
  registers_warp_deep,  // 4 packets a lane
  shared_block,         // kSmallBlock threads a row
  shared_block_large,   // kLargeBlock threads a row
  none,                 // it does not fit
};

inline constexpr int kSmallBlock = 256;
inline constexpr int kLargeBlock = 512;

struct HeldRow {
  Hold hold;
  size_t shared_bytes;  // dynamic shared memory of a block
};

// Room for the reductions' static shared memory.
inline constexpr size_t kStaticReserve = 1024;

constexpr HeldRow held_row(int64_t classes, size_t element_bytes, size_t shared_bytes) {
  constexpr int64_t kPacketSize = 16;
  // No row of more fits any device; the bound keeps the product below from overflowing.
  if (classes > (int64_t{1} << 32)) return {Hold::none, 0};
  const int64_t bytes = classes * static_cast<int64_t>(element_bytes);
  const int64_t packets = (bytes + kPacketSize - 1) / kPacketSize;
  if (packets <= 8) return {Hold::registers_8_lanes, 0};
  if (packets <= 32) return {Hold::registers_warp, 0};
  if (packets <= 4 * 32) return {Hold::registers_warp_deep, 0};
  // A large block keeps enough loads under way where few blocks fit a multiprocessor.
  const bool is_large = bytes > 32 * 1024;
  const int64_t threads = is_large ? kLargeBlock : kSmallBlock;
  const int64_t rounds = (packets + threads - 1) / threads;
  const size_t wanted = static_cast<size_t>(rounds * threads * kPacketSize);
  if (wanted + kStaticReserve > shared_bytes) return {Hold::none, 0};
  return {is_large ? Hold::shared_block_large : Hold::shared_block, wanted};
}

// The longest row that fits, of those that do with every shorter one.
template <class Fits>
constexpr int64_t longest_row(const Fits& fits) {
  int64_t low = 0, high = int64_t{1} << 32;
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (fits(middle)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// The longest row that held_row can hold.
constexpr int64_t longest_held_row(size_t element_bytes, size_t shared_bytes) {
  return longest_row([=](int64_t classes) {
    return held_row(classes, element_bytes, shared_bytes).hold != Hold::none;
  });
}

// A row that a cluster of blocks holds in their shared memories: `blocks` pieces of `piece`
// elements, the last ones cut short by the row's end. No blocks: it does not fit.
struct ClusterRow {
  int blocks;
  int64_t piece;
  int threads;  // of a block
  size_t shared_bytes;
};

inline constexpr int kMostBlocks = 8;  // of a cluster, on every device that has them
inline constexpr int kClusterBlock = 512, kLargeClusterBlock = 1024;
// What the warps of a cluster leave in each of its blocks, by turns in two places.
constexpr size_t cluster_totals_bytes(int threads, size_t element_bytes) {
  return 2u * kMostBlocks * static_cast<size_t>(threads / 32) * (element_bytes == 8 ? 32 : 16);
}
// As much of a row as leaves room for a second block beside the first on a multiprocessor: while
// one waits for its sums the other moves memory.
inline constexpr int64_t kTwoBlocksHold = 104 << 10;

// The fewest blocks that leave this room; else all, and more threads that read.
constexpr ClusterRow cluster_row(int64_t classes, size_t element_bytes, size_t shared_bytes) {
  constexpr int64_t kPieceBytes = 512;  // 32 packets: what a warp reads at a time
  if (classes > (int64_t{1} << 32)) return {0, 0, 0, 0};
  const int64_t size = static_cast<int64_t>(element_bytes);
  const int64_t parts = (classes * size + kPieceBytes - 1) / kPieceBytes;
  int64_t piece = 0, blocks = 1;
  do {
    blocks *= 2;
    piece = (parts + blocks - 1) / blocks * kPieceBytes;
  } while (piece > kTwoBlocksHold && blocks < kMostBlocks);
  const int threads = piece > kTwoBlocksHold ? kLargeClusterBlock : kClusterBlock;
  const int64_t round = threads * 16;
  const size_t wanted = static_cast<size_t>((piece + round - 1) / round * round) +
                        cluster_totals_bytes(threads, element_bytes);
  if (wanted > shared_bytes) return {0, 0, 0, 0};
  return {static_cast<int>(blocks), piece / size, threads, wanted};
}

constexpr int64_t longest_cluster_row(size_t element_bytes, size_t shared_bytes) {
  return longest_row([=](int64_t classes) {
    return cluster_row(classes, element_bytes, shared_bytes).blocks != 0;
  });
}

enum class CrossEntropyRung { three_pass, online_warp, block_row, one_pass, cluster, columns };

// A row that fits on chip is read once: by a block where two have room for one each, else by a
// cluster where the device has them (compute capability 9.0); of a longer one a block reads each
// packet twice. Rows that lie as the columns of a matrix have one kernel for all rungs.
constexpr CrossEntropyRung choose_cross_entropy(int64_t classes, int64_t inner,
                                                size_t element_bytes, size_t shared_bytes,
                                                int compute_capability) {
  if (inner != 1) return CrossEntropyRung::columns;
  const HeldRow held = held_row(classes, element_bytes, shared_bytes);
  const bool has_clusters = compute_capability >= 90;
  if (held.hold == Hold::none || static_cast<int64_t>(held.shared_bytes) > kTwoBlocksHold) {
    if (has_clusters && cluster_row(classes, element_bytes, shared_bytes).blocks != 0) {
      return CrossEntropyRung::cluster;
    }
  }
  return held.hold == Hold::none ? CrossEntropyRung::block_row : CrossEntropyRung::one_pass;
}

}  // namespace tilegrad::TILEGRAD_BACKEND
