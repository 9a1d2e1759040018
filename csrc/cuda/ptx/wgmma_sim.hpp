// SPDX-License-Identifier: MIT
// wgmma in the simulator: what its instructions do, on the CPU.
//
// The accumulators of an instruction leave the threads' registers when it is issued (NaN stays
// there) and return at the wait for its group. The multiplication reads shared memory when the
// schedule runs it, by the layouts that its descriptors name.
#pragma once

#include <array>
#include <cstring>
#include <list>
#include <vector>

#include "convert.cuh"
#include "site.cuh"

namespace tilegrad::TILEGRAD_BACKEND::detail {

inline constexpr unsigned kWarpgroup = 128;

// Where register i of thread `tid` of the warpgroup lies in d (64, n).
inline int wgmma_row(int tid, int i) { return tid / 32 * 16 + tid % 32 / 4 + i / 2 % 2 * 8; }
inline int wgmma_col(int tid, int i) { return i / 4 * 8 + tid % 4 * 2 + i % 2; }

// Accumulators in flight.
struct WgmmaTile {
  int n = 0;
  unsigned group = 0;  // the last one that works on them
  std::array<float*, kWarpgroup> registers = {};
  std::vector<float> value;  // (64, n)
};

struct WgmmaState {
  struct Warpgroup {
    std::list<WgmmaTile> tiles;
    unsigned closed = 0;  // groups so far
  };
  std::array<Warpgroup, 1024 / kWarpgroup> warpgroups;
};

inline unsigned wgmma_owner() { return simulator::current_thread() / kWarpgroup * kWarpgroup; }

// What an operand is made of: its bytes and its float.
struct WgmmaBfloat16 {
  using Bits = uint16_t;
  static float value(Bits bits) { return bits_to_float(static_cast<uint32_t>(bits) << 16); }
};
struct WgmmaFloat16 {
  using Bits = uint16_t;
  static float value(Bits bits) { return half_to_float(bits); }
};
// The instruction does not read the low 13 bits.
struct WgmmaTf32 {
  using Bits = uint32_t;
  static float value(Bits bits) { return bits_to_float(bits & 0xffffe000u); }
};

// The k of an instruction is 32 bytes.
template <class Element>
inline constexpr uint32_t kWgmmaDepth = 32 / sizeof(typename Element::Bits);

// Element (i, p) of a tile, i of m or n, p of k, as its descriptor says.
template <class Element, bool kTranspose>
class WgmmaOperand {
 public:
  WgmmaOperand(uint64_t descriptor, const char* shared)
      : shared_(shared),
        start_(field(descriptor, 0)),
        leading_(field(descriptor, 16)),
        stride_(field(descriptor, 32)) {}

  float operator()(uint32_t i, uint32_t p) const {
    typename Element::Bits bits;
    std::memcpy(&bits, address(i, p), kBytes);
    return Element::value(bits);
  }

  // Tells the analysis of the 16-byte chunks that hold `count` of i and all of p.
  void trace(const simulator::AsyncTag& tag, uint32_t count) const {
    for (uint32_t i = 0; i < count; i += kTranspose ? 8 : 1) {
      for (uint32_t p = 0; p < kWgmmaDepth<Element>; p += kTranspose ? 1 : 16 / kBytes) {
        trace_async(tag, nullptr, address(i, p), 16, false);
      }
    }
  }

 private:
  static constexpr uint32_t kBytes = sizeof(typename Element::Bits);
  static_assert(kBytes == 2 || !kTranspose);  // tf32 knows k-major tiles only

  const char* address(uint32_t i, uint32_t p) const {
    const uint32_t offset = kTranspose
                                ? i % 64 * 2 + i / 64 * leading_ + p % 8 * 128 + p / 8 * stride_
                                : i % 8 * 128 + i / 8 * stride_ + p * kBytes;
    const uint32_t address = start_ + offset;
    return shared_ + (address ^ (address >> 3 & 0x70u));
  }
  static uint32_t field(uint64_t descriptor, int shift) {
    return static_cast<uint32_t>(descriptor >> shift & 0x3fffu) << 4;
  }

  const char* shared_;
  uint32_t start_, leading_, stride_;
};

template <int kN, class Element, bool kTransposeA, bool kTransposeB>
inline void wgmma_multiply(float* d, uint64_t a, uint64_t b, const char* shared) {
  constexpr uint32_t kDepth = kWgmmaDepth<Element>;
  const WgmmaOperand<Element, kTransposeA> left(a, shared);
  const WgmmaOperand<Element, kTransposeB> right(b, shared);
  float row[kDepth][kN];
  for (uint32_t j = 0; j < kN; ++j) {
    for (uint32_t p = 0; p < kDepth; ++p) row[p][j] = right(j, p);
  }
  for (uint32_t i = 0; i < 64; ++i) {
    float sum[kN];
    std::memcpy(sum, d + i * kN, sizeof(sum));
    for (uint32_t p = 0; p < kDepth; ++p) {
      const float factor = left(i, p);
      for (int j = 0; j < kN; ++j) sum[j] += factor * row[p][j];
    }
    std::memcpy(d + i * kN, sum, sizeof(sum));
  }
}

// NaN with a payload that no arithmetic gives.
inline constexpr uint32_t kInFlight = 0x7fe5a5a5u;

struct WgmmaRecord {
  float* registers;
  uint64_t a, b;
  Site site;
};

// A thread may not write accumulators that are in flight.
inline void wgmma_check_untouched(const WgmmaTile& tile, Site site) {
  for (const float* registers : tile.registers) {
    for (int i = 0; i < tile.n / 2; ++i) {
      if (float_to_bits(registers[i]) != kInFlight) {
        simulator::fail("wgmma: accumulators were written before the wait for their group", site);
      }
    }
  }
}

// The tile that these registers are in flight with, or a new one of them.
inline WgmmaTile& wgmma_take(WgmmaState::Warpgroup& warpgroup, WgmmaRecord* const* threads, int n) {
  for (WgmmaTile& tile : warpgroup.tiles) {
    if (tile.registers[0] == threads[0]->registers) {
      wgmma_check_untouched(tile, threads[0]->site);
      return tile;
    }
  }
  WgmmaTile& tile = warpgroup.tiles.emplace_back();
  tile.n = n;
  tile.value.resize(static_cast<size_t>(64 * n));
  for (int tid = 0; tid < static_cast<int>(kWarpgroup); ++tid) {
    tile.registers[static_cast<size_t>(tid)] = threads[tid]->registers;
    for (int i = 0; i < n / 2; ++i) {
      const int at = wgmma_row(tid, i) * n + wgmma_col(tid, i);
      tile.value[static_cast<size_t>(at)] = threads[tid]->registers[i];
      threads[tid]->registers[i] = bits_to_float(kInFlight);
    }
  }
  return tile;
}

template <int kN, class Element, bool kTransposeA, bool kTransposeB>
inline void wgmma(float* d, uint64_t a, uint64_t b, Site site) {
  WgmmaRecord mine{d, a, b, site};
  simulator::group_collective(
      wgmma_owner(), kWarpgroup, mine,
      [](WgmmaRecord* const* threads, unsigned) {
        const WgmmaRecord& first = *threads[0];
        for (unsigned i = 0; i < kWarpgroup; ++i) {
          const WgmmaRecord& r = *threads[i];
          if (r.a != first.a || r.b != first.b) {
            simulator::fail("wgmma: the descriptors differ within the warpgroup", first.site);
          }
        }
        for (const uint64_t descriptor : {first.a, first.b}) {
          if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0) {
            simulator::fail("wgmma: this simulator knows the 128-byte swizzle without offset only",
                            first.site);
          }
        }
        const unsigned owner = wgmma_owner();
        auto& warpgroup = simulator::block_local<WgmmaState>().warpgroups[owner / kWarpgroup];
        WgmmaTile& tile = wgmma_take(warpgroup, threads, kN);
        tile.group = warpgroup.closed;
        float* const value = tile.value.data();
        const auto* const shared = static_cast<const char*>(simulator::dynamic_shared_memory());
        const simulator::AsyncTag tag{simulator::AsyncKind::kMatrix, owner, "wgmma.mma_async",
                                      first.site};
        if (simulator::tracer() != nullptr) {
          trace_flops(uint64_t{2} * 64 * kN * kWgmmaDepth<Element>);
          WgmmaOperand<Element, kTransposeA>(first.a, shared).trace(tag, 64);
          WgmmaOperand<Element, kTransposeB>(first.b, shared).trace(tag, kN);
        }
        simulator::issue(tag, [value, shared, a = first.a, b = first.b] {
          wgmma_multiply<kN, Element, kTransposeA, kTransposeB>(value, a, b, shared);
        });
      },
      "wgmma.mma_async", site);
}

inline void wgmma_commit(Site site) {
  struct Nothing {
  } mine;
  simulator::group_collective(
      wgmma_owner(), kWarpgroup, mine,
      [](Nothing* const*, unsigned) {
        const unsigned owner = wgmma_owner();
        simulator::commit_group(simulator::AsyncKind::kMatrix, owner);
        ++simulator::block_local<WgmmaState>().warpgroups[owner / kWarpgroup].closed;
      },
      "wgmma.commit_group", site);
}

// The accumulators of all groups but the newest `pending` return to their registers.
inline void wgmma_wait(unsigned pending, Site site) {
  simulator::wait_group(simulator::AsyncKind::kMatrix, wgmma_owner(), pending);
  struct Record {
    unsigned pending;
    Site site;
  } mine{pending, site};
  simulator::group_collective(
      wgmma_owner(), kWarpgroup, mine,
      [](Record* const* threads, unsigned) {
        auto& warpgroup =
            simulator::block_local<WgmmaState>().warpgroups[wgmma_owner() / kWarpgroup];
        warpgroup.tiles.remove_if([&](const WgmmaTile& tile) {
          if (tile.group + threads[0]->pending >= warpgroup.closed) return false;
          wgmma_check_untouched(tile, threads[0]->site);
          for (int tid = 0; tid < static_cast<int>(kWarpgroup); ++tid) {
            for (int i = 0; i < tile.n / 2; ++i) {
              const int at = wgmma_row(tid, i) * tile.n + wgmma_col(tid, i);
              tile.registers[static_cast<size_t>(tid)][i] = tile.value[static_cast<size_t>(at)];
            }
          }
          return true;
        });
      },
      "wgmma.wait_group", site);
}

}  // namespace tilegrad::TILEGRAD_BACKEND::detail
