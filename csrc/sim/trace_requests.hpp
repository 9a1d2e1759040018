// SPDX-License-Identifier: MIT
// What the memory system makes of the addresses that the lanes of a warp present together.
#pragma once

#include <array>
#include <cstdint>

namespace tilegrad::simulator {

// Up to 32 addresses of one instruction; each lane of `mask` moves the same number of bytes.
struct Request {
  uint32_t mask = 0;
  bool shared = false;
  std::array<uint64_t, 32> address;  // of the lanes in mask only
};

// Units of work, and how few there could be.
struct Cost {
  uint32_t actual = 0, ideal = 0;
};

// Global memory: sectors of 32 bytes. Ideal: as many as hold the bytes asked for, each byte once.
Cost count_sectors(const Request& request, unsigned bytes);

// Shared memory: wavefronts. One serves each of 32 banks once, a bank being every 32nd word of 4
// bytes; lanes that want the same word share it. Accesses of 8 and 16 bytes are served half and
// quarter warp by half and quarter warp. Ideal: one wavefront for each of these parts.
Cost count_wavefronts(const Request& request, unsigned bytes);

}  // namespace tilegrad::simulator
