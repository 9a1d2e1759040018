// SPDX-License-Identifier: MIT
// The analysis of memory accesses: coalescing and bank conflicts by source line, races, bounds.
//
// Kernels are compiled with -fsanitize=thread, so that each of their memory accesses calls a
// function of trace_callbacks.cpp with its address. Accesses of the lanes of a warp by one
// instruction, the n-th time since the lanes last met, are one request.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "trace_clocks.hpp"
#include "trace_hooks.hpp"
#include "trace_requests.hpp"
#include "trace_shadow.hpp"

namespace tilegrad::simulator {

enum class Op : uint8_t { kLoad, kStore, kAtomic };
enum class Space : uint8_t { kGlobal, kShared };

// What one instruction's requests cost in one space.
struct Tally {
  uint64_t requests = 0, actual = 0, ideal = 0;
  uint32_t worst = 0;
};

// Memory that kernels may use: a device buffer or a block's shared memory.
struct Region {
  uintptr_t start = 0;
  size_t bytes = 0;
  Space space = Space::kGlobal;
  uint64_t number = 0;      // of the buffer
  bool in_statics = false;  // static shared arrays: offsets are those of thread_local symbols
  Shadow shadow;
};

// An instruction: a return address, or a line of a wrapper's caller.
struct TraceSite {
  uint32_t number = 0;
  uintptr_t address = 0;       // return address, or 0
  const char* what = nullptr;  // instruction of a wrapper
  Site line;                   // its caller's
  Op op = Op::kLoad;
  unsigned bytes = 0;
  std::array<Tally, 2> tally;  // by Space
  Region* latest = nullptr;

  struct Lane {
    uint32_t segment = 0, executions = 0;
  };
  std::vector<Lane> lanes;                     // by thread
  std::vector<std::vector<Request>> requests;  // by warp: those since its lanes last met
};

struct Access {
  uint3 thread{}, block{};
  uint32_t site = 0;
};
struct Race {
  Access first, second;
  Space space = Space::kGlobal;
  bool in_statics = false;
  uint64_t buffer = 0, bytes = 0, offset = 0, count = 0;
  uintptr_t kernel = 0;  // in whose module static arrays lie
};
struct OutOfBounds {
  Access access;
  Space space = Space::kGlobal;
  uint64_t buffer = 0, bytes = 0;
  int64_t offset = 0;
  bool freed = false;
  uint64_t count = 0;
};
struct LaunchNote {
  uintptr_t kernel = 0;
  dim3 grid, block;
  size_t dynamic_bytes = 0;
};

class Tracer final : public TraceHooks {
 public:
  ~Tracer() = default;

  void launch_begins(Worker& worker) override;
  void launch_ends() override;
  void blocks_begin(uint64_t first) override;
  void blocks_end() override;
  void barrier(unsigned id, bool waits, bool last) override;
  void warp_met(unsigned lanes, const char* what) override;
  void group_met(unsigned first_thread, unsigned count) override;
  void cluster_arrive(const Cluster* cluster) override;
  void cluster_phase_ends(const Cluster* cluster) override;
  void cluster_waits() override;
  void cluster_acquire(const Cluster* cluster) override;
  void mbarrier_init(const uint64_t* barrier) override { clocks_.mbarrier_init(barrier); }
  void mbarrier_arrive(const uint64_t* barrier) override;
  void mbarrier_phase_ends(const uint64_t* barrier) override {
    clocks_.mbarrier_phase_ends(barrier);
  }
  void mbarrier_acquire(const uint64_t* barrier) override;
  void commit_group(AsyncKind kind, unsigned owner) override;
  void wait_group(AsyncKind kind, unsigned owner, unsigned allowed) override;
  void access(const char* what, const Site& site, const void* p, unsigned bytes,
              bool writes) override;
  void async_access(const AsyncTag& tag, const uint64_t* barrier, const void* p, size_t bytes,
                    bool writes) override;
  void flops(uint64_t count) override { flops_ += count; }

  // From the kernel: `bytes` (1 .. 16) at p, by the call that returns to return_address.
  void access(uintptr_t p, unsigned bytes, Op op, uintptr_t return_address);

  // Everything found, as JSON; no launch may be in progress.
  std::string report();

 private:
  // The running thread, and one of its block: numbers through the resident blocks.
  unsigned thread() const;
  unsigned thread_of_block(unsigned linear) const;
  unsigned warp_of(unsigned thread) const;
  TraceSite& site_of(uintptr_t return_address, unsigned bytes, Op op);
  TraceSite& site_of(const char* what, Site line, unsigned bytes, Op op);
  TraceSite& add_site(unsigned bytes, Op op);
  Region* find_region(TraceSite& site, uintptr_t p);
  void check_bounds(const TraceSite& site, uintptr_t p, size_t bytes, unsigned thread);
  void note_out_of_bounds(const OutOfBounds& what);
  void note_lane(TraceSite& site, Space space, uintptr_t p, unsigned thread);
  void check_races(Region& region, size_t offset, size_t bytes, Op op, Epoch epoch, unsigned thread,
                   uint32_t site);
  void note_race(const Region& region, size_t offset, Epoch before, uint32_t site_before,
                 unsigned thread, uint32_t site);
  void flush_warp(unsigned warp);
  uint3 thread_index(unsigned thread) const;
  // In the round's resident blocks.
  uint3 block_index(uint64_t round, unsigned thread) const;

  // What is done, file, line, bytes, op; text by address.
  using WrapperKey = std::tuple<const char*, const char*, int, unsigned, Op>;

  std::mutex launches_;  // one at a time
  Worker* worker_ = nullptr;
  unsigned threads_ = 0, warps_ = 0;  // of all resident blocks
  dim3 grid_, block_size_;
  Clocks clocks_;

  std::vector<std::unique_ptr<TraceSite>> sites_;
  std::vector<std::pair<uintptr_t, TraceSite*>> table_;  // open addressing by return address
  size_t table_used_ = 0;
  std::map<WrapperKey, TraceSite*> wrapper_sites_;

  std::vector<std::unique_ptr<Region>> regions_;  // of the launch, ascending
  std::array<uintptr_t, 256> elsewhere_{};        // pages known to be in and near no region

  std::vector<uint32_t> segments_;  // by warp: changes when its lanes meet
  uint32_t last_segment_ = 0;
  std::vector<std::vector<TraceSite*>> open_;  // by warp: sites with requests
  std::vector<unsigned> cluster_waits_;        // by warp: lanes that have come to the wait

  struct BarrierState {
    std::vector<unsigned> waiting;
    Clocks::Vector arrived;
    bool has_arrivals = false;
  };
  std::vector<std::array<BarrierState, 16>> barriers_;  // by resident block

  std::vector<Race> races_;
  std::vector<OutOfBounds> out_of_bounds_;
  std::vector<LaunchNote> launches_noted_;
  uint64_t flops_ = 0;
};

// Starts a session for this module's launches; std::logic_error if one is on.
void begin_trace();
// Ends it: the report.
std::string end_trace();

}  // namespace tilegrad::simulator
