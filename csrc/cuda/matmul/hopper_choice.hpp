// SPDX-License-Identifier: MIT
// Which tile of c rungs 10 and 12 take, and into how many pieces they cut k: a pure function of
// shape, bytes of an element and number of multiprocessors, the smallest of a written model's
// times.
//
// Model:       cycles of one multiprocessor at 1.755 GHz; predictions, not measurements. A step of
//              64 p (32 of floats, at half the rate) takes the longer of its arithmetic (4096 flop
//              a cycle) and its operands' way from L2 (36 bytes a cycle and multiprocessor, what
//              fast.cu's 704 TFLOP/s with tiles of 128 x 256 amount to on an H100). A block does
//              `turns` tiles one after the other; the whole is never faster than memory (2400 bytes
//              a cycle, 4.2 TB/s). Pieces of k are written and read once more, as floats, and cost
//              a second kernel. Of equal times (those of memory) the smallest tile and the fewest
//              pieces are taken. The end of a tile is of 16-bit elements; floats take twice as
//              long.
// Table:       tile of c    step: flop, L2       end of a tile      stages, shared memory
//              128 x 256    1024,  911 cycles    1024 cycles        4, 224 KB, blocks in pairs
//              128 x 128     512,  911           512                6, 224 KB
//               64 x 128     256,  683           256                8, 224 KB
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "../../ops.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

struct HopperChoice {
  int tile_m, tile_n;
  int pieces;  // of k
};

namespace hopper_choice {

inline constexpr std::array<std::array<int, 2>, 3> kTiles = {{{64, 128}, {128, 128}, {128, 256}}};
inline constexpr int64_t kStepBytes = 128;  // of k
inline constexpr int64_t kLeastSteps = 4;   // of a piece: the ring has to fill
inline constexpr std::array<int, 11> kPieces = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64};

// Blocks of a cluster, which have tiles below each other and share columns of b.
constexpr int cluster(int tile_n) { return tile_n == 256 ? 2 : 1; }

inline int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Whether coordinates, and the tiles of k's pieces, are numbers of 32 bits.
inline bool counts_fit(const MatmulSize& size) {
  constexpr int64_t kMost = int64_t{1} << 30;
  const auto& [batch, m, n, k] = size;
  return std::max({m, n, k, batch}) <= kMost && batch * up(m, 64) <= kMost / up(n, 128);
}

inline int64_t cycles(const MatmulSize& size, const HopperChoice& choice, int multiprocessors,
                      int element_bytes) {
  const auto& [batch, m, n, k] = size;
  const int64_t tile_m = choice.tile_m, tile_n = choice.tile_n;
  const int64_t blocks = cluster(choice.tile_n);
  const int64_t items = batch * up(m, tile_m * blocks) * up(n, tile_n) * choice.pieces;
  const int64_t turns = up(items, multiprocessors / blocks);
  const int64_t steps = up(up(k * element_bytes, kStepBytes), choice.pieces);
  // Rows and columns outside c are not fetched.
  const int64_t bytes = (std::min(m, tile_m) + std::min(n, tile_n) / blocks) * kStepBytes;
  const int64_t step = std::max(tile_m * tile_n / 32, bytes / 36);
  const int64_t end = tile_m * tile_n / 64 * element_bytes;
  const int64_t memory = batch * (m * k + k * n + m * n) * element_bytes / 2400;
  const int64_t sums = choice.pieces == 1 ? 0 : batch * m * n * 4 * choice.pieces;
  return 1500 + std::max(turns * (steps * step + end), memory) +
         (choice.pieces == 1 ? 0 : 3000 + 2 * sums / 4000);
}

}  // namespace hopper_choice

inline HopperChoice choose_hopper(const MatmulSize& size, int multiprocessors, int element_bytes) {
  using namespace hopper_choice;
  HopperChoice best = {};
  int64_t least = 0;
  for (const auto& [tile_m, tile_n] : kTiles) {
    const int blocks = cluster(tile_n);
    if (blocks > multiprocessors) continue;
    const int64_t tiles = size.batch * up(size.m, tile_m * blocks) * up(size.n, tile_n) * blocks;
    for (const int pieces : kPieces) {
      const bool fits = tiles * pieces <= multiprocessors &&
                        up(size.k * element_bytes, kStepBytes) >= pieces * kLeastSteps;
      if (pieces > 1 && !fits) break;
      const HopperChoice choice = {tile_m, tile_n, pieces};
      const int64_t time = cycles(size, choice, multiprocessors, element_bytes);
      if (best.pieces == 0 || time < least) {
        best = choice;
        least = time;
      }
    }
  }
  return best;
}

}  // namespace tilegrad::TILEGRAD_BACKEND
