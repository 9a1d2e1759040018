// SPDX-License-Identifier: MIT
// wgmma in the simulator: what its instructions do, on the CPU.
//
// The accumulators of an instruction leave the threads' registers when it is issued (NaN stays
// there) and return at the wait for its group. The multiplication reads shared memory when the
// schedule runs it, by the layouts that its descriptors name. Registers are arrays of the kernel:
// those of an instruction in flight may be neither written nor given up before the wait.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <list>
#include <string>
#include <vector>

#include "convert.cuh"
#include "site.cuh"

namespace tilegrad::TILEGRAD_BACKEND::detail {

inline constexpr unsigned kWarpgroup = 128;

// Where register i of thread `tid` of the warpgroup lies in d (64, n).
inline int wgmma_row(int tid, int i) { return tid / 32 * 16 + tid % 32 / 4 + i / 2 % 2 * 8; }
inline int wgmma_col(int tid, int i) { return i / 4 * 8 + tid % 4 * 2 + i % 2; }

// An array of a thread, which stands for its registers. `frame` is that of the function that was
// given it, which is not inlined: the variables of all its callers lie above.
template <class V>
struct WgmmaArray {
  V* data = nullptr;
  const void* frame = nullptr;

  // Whether its function has returned, seen from a later frame: nobody may look at it any more.
  bool is_gone(const void* now) const {
    const auto at = reinterpret_cast<uintptr_t>(data);
    return at >= reinterpret_cast<uintptr_t>(frame) && at < reinterpret_cast<uintptr_t>(now);
  }
};

// Accumulators in flight.
struct WgmmaTile {
  int n = 0;
  unsigned group = 0;  // the last one that works on them
  std::array<WgmmaArray<float>, kWarpgroup> registers = {};
  std::vector<float> value;  // (64, n)
};

// Operand a in registers, which an instruction in flight may still read.
struct WgmmaHeld {
  unsigned group;
  Site site;  // of the instruction
  std::array<WgmmaArray<const uint32_t>, kWarpgroup> registers = {};
  std::array<std::array<uint32_t, 4>, kWarpgroup> value = {};  // when it was issued
};

struct WgmmaState {
  struct Warpgroup {
    std::list<WgmmaTile> tiles;
    std::list<WgmmaHeld> held;
    unsigned closed = 0;  // groups so far
  };
  std::array<Warpgroup, 1024 / kWarpgroup> warpgroups;
  std::array<bool, 1024> fenced = {};  // has the thread called wgmma_fence since its last wait?
};

inline unsigned wgmma_owner() { return simulator::current_thread() / kWarpgroup * kWarpgroup; }

// A rule that thread `tid` of the warpgroup has broken.
[[noreturn]] inline void wgmma_fail(const std::string& rule, unsigned tid, Site site) {
  simulator::fail(rule + ", by thread " + std::to_string(wgmma_owner() + tid) + " of the block",
                  site);
}

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
  WgmmaArray<float> registers;
  uint64_t a, b;
  Site site;
};

// A thread may not write accumulators that are in flight.
inline void wgmma_check_untouched(const WgmmaTile& tile, Site site) {
  for (unsigned tid = 0; tid < kWarpgroup; ++tid) {
    for (int i = 0; i < tile.n / 2; ++i) {
      if (float_to_bits(tile.registers[tid].data[i]) != kInFlight) {
        wgmma_fail("wgmma: accumulators were written before the wait for their group", tid, site);
      }
    }
  }
}

// Registers that a thread may have written are ordered before an instruction by a fence only.
inline void wgmma_check_fenced(Site site) {
  const auto& fenced = simulator::block_local<WgmmaState>().fenced;
  for (unsigned tid = 0; tid < kWarpgroup; ++tid) {
    if (!fenced[wgmma_owner() + tid]) {
      wgmma_fail("wgmma: its registers need a wgmma_fence since the last wait", tid, site);
    }
  }
}

// The tile that these registers are in flight with, or a new one of them.
inline WgmmaTile& wgmma_take(WgmmaState::Warpgroup& warpgroup, WgmmaRecord* const* threads, int n) {
  for (WgmmaTile& tile : warpgroup.tiles) {
    if (tile.registers[0].data == threads[0]->registers.data) {
      wgmma_check_untouched(tile, threads[0]->site);
      return tile;
    }
  }
  wgmma_check_fenced(threads[0]->site);
  WgmmaTile& tile = warpgroup.tiles.emplace_back();
  tile.n = n;
  tile.value.resize(static_cast<size_t>(64 * n));
  for (int tid = 0; tid < static_cast<int>(kWarpgroup); ++tid) {
    tile.registers[static_cast<size_t>(tid)] = threads[tid]->registers;
    float* const registers = threads[tid]->registers.data;
    for (int i = 0; i < n / 2; ++i) {
      const int at = wgmma_row(tid, i) * n + wgmma_col(tid, i);
      tile.value[static_cast<size_t>(at)] = registers[i];
      registers[i] = bits_to_float(kInFlight);
    }
  }
  return tile;
}

template <int kN, class Element, bool kTransposeA, bool kTransposeB>
[[gnu::noinline]] inline void wgmma(float* d, uint64_t a, uint64_t b, Site site) {
  WgmmaRecord mine{{d, __builtin_frame_address(0)}, a, b, site};
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

inline void wgmma_fence() {
  simulator::block_local<WgmmaState>().fenced[simulator::current_thread()] = true;
}

struct WgmmaWait {
  unsigned pending;
  const void* frame;
  Site site;
};

// A thread may neither write nor give up what an instruction in flight reads.
inline void wgmma_check_held(const WgmmaHeld& held, WgmmaWait* const* threads) {
  const std::string issued =
      "; the product was issued at line " + std::to_string(held.site.line) + ", its operand a";
  for (unsigned tid = 0; tid < kWarpgroup; ++tid) {
    const auto& registers = held.registers[tid];
    if (registers.is_gone(threads[tid]->frame)) {
      wgmma_fail("wgmma: registers were given up before the wait for their group" + issued +
                     " is an array of a function that has returned",
                 tid, threads[0]->site);
    }
    if (std::memcmp(registers.data, held.value[tid].data(), sizeof(held.value[tid])) != 0) {
      wgmma_fail("wgmma: registers were written before the wait for their group" + issued +
                     " has changed since",
                 tid, threads[0]->site);
    }
  }
}

// The accumulators go back to their registers.
inline void wgmma_return(const WgmmaTile& tile, WgmmaWait* const* threads) {
  for (unsigned tid = 0; tid < kWarpgroup; ++tid) {
    if (tile.registers[tid].is_gone(threads[tid]->frame)) {
      wgmma_fail(
          "wgmma: accumulators were given up before the wait for their group: the function whose "
          "array they are has returned",
          tid, threads[0]->site);
    }
  }
  wgmma_check_untouched(tile, threads[0]->site);
  for (int tid = 0; tid < static_cast<int>(kWarpgroup); ++tid) {
    for (int i = 0; i < tile.n / 2; ++i) {
      const int at = wgmma_row(tid, i) * tile.n + wgmma_col(tid, i);
      tile.registers[static_cast<size_t>(tid)].data[i] = tile.value[static_cast<size_t>(at)];
    }
  }
}

// All groups but the newest `pending` end.
[[gnu::noinline]] inline void wgmma_wait(unsigned pending, Site site) {
  simulator::wait_group(simulator::AsyncKind::kMatrix, wgmma_owner(), pending);
  WgmmaWait mine{pending, __builtin_frame_address(0), site};
  simulator::group_collective(
      wgmma_owner(), kWarpgroup, mine,
      [](WgmmaWait* const* threads, unsigned) {
        auto& state = simulator::block_local<WgmmaState>();
        auto& warpgroup = state.warpgroups[wgmma_owner() / kWarpgroup];
        const auto ends = [&](unsigned group) {
          return group + threads[0]->pending < warpgroup.closed;
        };
        warpgroup.held.remove_if([&](const WgmmaHeld& held) {
          if (ends(held.group)) wgmma_check_held(held, threads);
          return ends(held.group);
        });
        warpgroup.tiles.remove_if([&](const WgmmaTile& tile) {
          if (ends(tile.group)) wgmma_return(tile, threads);
          return ends(tile.group);
        });
        std::fill_n(state.fenced.begin() + wgmma_owner(), kWarpgroup, false);
      },
      "wgmma.wait_group", site);
}

}  // namespace tilegrad::TILEGRAD_BACKEND::detail
