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

// The longest row that held_row can hold.
constexpr int64_t longest_held_row(size_t element_bytes, size_t shared_bytes) {
  int64_t low = 0, high = int64_t{1} << 32;
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (held_row(middle, element_bytes, shared_bytes).hold == Hold::none) {
      high = middle - 1;
    } else {
      low = middle;
    }
  }
  return low;
}

enum class CrossEntropyRung { three_pass, online_warp, block_row, one_pass, columns };

// A row that fits on chip is read once; of a longer one a block reads each packet twice. Rows that
// lie as the columns of a matrix have one kernel for all rungs.
constexpr CrossEntropyRung choose_cross_entropy(int64_t classes, int64_t inner,
                                                size_t element_bytes, size_t shared_bytes) {
  if (inner != 1) return CrossEntropyRung::columns;
  return held_row(classes, element_bytes, shared_bytes).hold == Hold::none
             ? CrossEntropyRung::block_row
             : CrossEntropyRung::one_pass;
}

}  // namespace tilegrad::TILEGRAD_BACKEND
