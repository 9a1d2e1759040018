// SPDX-License-Identifier: MIT
// wgmma with operand a in registers, in the simulator: a is taken when the instruction is issued,
// b is read when the schedule runs it. At the wait a has to be what was taken.
#pragma once

#include "wgmma_sim.hpp"

namespace tilegrad::TILEGRAD_BACKEND::detail {

struct WgmmaRegistersRecord {
  WgmmaRecord tile;
  WgmmaArray<const uint32_t> a;  // 4 pairs
};

// Where half e of pair i of thread `tid` of the warpgroup lies in a (64, 16).
inline int wgmma_a_row(int tid, int i) { return tid / 32 * 16 + tid % 32 / 4 + i % 2 * 8; }
inline int wgmma_a_col(int tid, int i, int e) { return i / 2 * 8 + tid % 4 * 2 + e; }

template <int kN, class Element, bool kTransposeB>
inline void wgmma_multiply_registers(float* d, const std::vector<uint16_t>& a, uint64_t b,
                                     const char* shared) {
  const WgmmaOperand<Element, kTransposeB> right(b, shared);
  float row[16][kN];
  for (uint32_t j = 0; j < kN; ++j) {
    for (uint32_t p = 0; p < 16; ++p) row[p][j] = right(j, p);
  }
  for (size_t i = 0; i < 64; ++i) {
    for (size_t p = 0; p < 16; ++p) {
      const float factor = Element::value(a[i * 16 + p]);
      for (size_t j = 0; j < kN; ++j) d[i * kN + j] += factor * row[p][j];
    }
  }
}

template <int kN, class Element, bool kTransposeB>
[[gnu::noinline]] inline void wgmma_registers(float* d, const uint32_t* a, uint64_t b, Site site) {
  const void* const frame = __builtin_frame_address(0);
  WgmmaRegistersRecord mine{{{d, frame}, 0, b, site}, {a, frame}};
  simulator::group_collective(
      wgmma_owner(), kWarpgroup, mine,
      [](WgmmaRegistersRecord* const* threads, unsigned) {
        const WgmmaRecord& first = threads[0]->tile;
        std::array<WgmmaRecord*, kWarpgroup> tiles;
        std::vector<uint16_t> left(size_t{64} * 16);
        for (unsigned tid = 0; tid < kWarpgroup; ++tid) {
          tiles[tid] = &threads[tid]->tile;
          if (tiles[tid]->b != first.b) {
            simulator::fail("wgmma: the descriptors differ within the warpgroup", first.site);
          }
          for (int i = 0; i < 8; ++i) {
            const int at = wgmma_a_row(static_cast<int>(tid), i / 2) * 16 +
                           wgmma_a_col(static_cast<int>(tid), i / 2, i % 2);
            left[static_cast<size_t>(at)] =
                static_cast<uint16_t>(threads[tid]->a.data[i / 2] >> i % 2 * 16);
          }
        }
        if (first.b >> 62 != 1 || (first.b >> 49 & 7) != 0) {
          simulator::fail("wgmma: this simulator knows the 128-byte swizzle without offset only",
                          first.site);
        }
        const unsigned owner = wgmma_owner();
        auto& warpgroup = simulator::block_local<WgmmaState>().warpgroups[owner / kWarpgroup];
        wgmma_check_fenced(first.site);
        WgmmaTile& tile = wgmma_take(warpgroup, tiles.data(), kN);
        tile.group = warpgroup.closed;
        WgmmaHeld& held = warpgroup.held.emplace_back(WgmmaHeld{tile.group, first.site});
        for (unsigned tid = 0; tid < kWarpgroup; ++tid) {
          held.registers[tid] = threads[tid]->a;
          std::copy_n(threads[tid]->a.data, 4, held.value[tid].begin());
        }
        float* const value = tile.value.data();
        const auto* const shared = static_cast<const char*>(simulator::dynamic_shared_memory());
        const simulator::AsyncTag tag{simulator::AsyncKind::kMatrix, owner, "wgmma.mma_async",
                                      first.site};
        if (simulator::tracer() != nullptr) {
          trace_flops(uint64_t{2} * 64 * kN * 16);
          WgmmaOperand<Element, kTransposeB>(first.b, shared).trace(tag, kN);
        }
        simulator::issue(tag, [value, shared, left, b = first.b] {
          wgmma_multiply_registers<kN, Element, kTransposeB>(value, left, b, shared);
        });
      },
      "wgmma.mma_async", site);
}

}  // namespace tilegrad::TILEGRAD_BACKEND::detail
