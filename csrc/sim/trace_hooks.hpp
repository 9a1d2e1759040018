// SPDX-License-Identifier: MIT
// What the runtime and the instruction wrappers tell an analysis of memory accesses. The analysis
// (trace.cpp) is part of _sim_trace only; elsewhere, and outside a traced launch, nobody listens.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "registers.hpp"

namespace tilegrad::simulator {

struct AsyncTag;
struct Cluster;
struct Site;
enum class AsyncKind : uint8_t;

class TraceHooks {
 public:
  // A launch; launch_ends follows also when it fails.
  virtual void launch_begins(Worker& worker) = 0;
  virtual void launch_ends() = 0;
  // The resident blocks, from the first-th of the grid on.
  virtual void blocks_begin(uint64_t first) = 0;
  virtual void blocks_end() = 0;

  // The running thread has come to barrier `id`; the last one lets the waiting ones go on.
  virtual void barrier(unsigned id, bool waits, bool last) = 0;
  // Lanes of the running thread's warp, or a group of threads, have all come to an instruction.
  virtual void warp_met(unsigned lanes, const char* what) = 0;
  virtual void group_met(unsigned first_thread, unsigned count) = 0;

  // The barrier of a cluster: the running thread arrives, the phase ends, the running thread comes
  // to the wait and has waited.
  virtual void cluster_arrive(const Cluster* cluster) = 0;
  virtual void cluster_phase_ends(const Cluster* cluster) = 0;
  virtual void cluster_waits() = 0;
  virtual void cluster_acquire(const Cluster* cluster) = 0;

  // mbarriers: the running thread arrives, a phase ends, the running thread has seen that it ended.
  virtual void mbarrier_init(const uint64_t* barrier) = 0;
  virtual void mbarrier_arrive(const uint64_t* barrier) = 0;
  virtual void mbarrier_phase_ends(const uint64_t* barrier) = 0;
  virtual void mbarrier_acquire(const uint64_t* barrier) = 0;

  // Groups of asynchronous operations.
  virtual void commit_group(AsyncKind kind, unsigned owner) = 0;
  virtual void wait_group(AsyncKind kind, unsigned owner, unsigned allowed) = 0;

  // An instruction body reads or writes memory for the running thread.
  virtual void access(const char* what, const Site& site, const void* p, unsigned bytes,
                      bool writes) = 0;
  // The asynchronous operation that is being issued will read or write memory; its completion is
  // signalled on `barrier` (nullptr: it belongs to the open group of tag.kind and tag.owner).
  virtual void async_access(const AsyncTag& tag, const uint64_t* barrier, const void* p,
                            size_t bytes, bool writes) = 0;
  // Floating-point operations of a tensor-core instruction, once for all its threads.
  virtual void flops(uint64_t count) = 0;

 protected:
  ~TraceHooks() = default;
};

// Who listens to the launches of this module.
inline constinit std::atomic<TraceHooks*> trace_session{nullptr};

// The listener of the traced launch that this host thread runs, else nullptr.
inline TraceHooks* tracer() { return registers.tracer; }

// While one lives, memory accesses are the machine's, not the kernel's: a collective's function, an
// asynchronous operation, a condition that is polled.
class TraceMute {
 public:
  TraceMute() { ++registers.trace_muted; }
  ~TraceMute() { --registers.trace_muted; }
  TraceMute(const TraceMute&) = delete;
  TraceMute& operator=(const TraceMute&) = delete;
};

// For the time of a launch on this host thread.
class TraceLaunch {
 public:
  explicit TraceLaunch(Worker& worker) : session_(trace_session.load()) {
    if (session_ == nullptr) return;
    session_->launch_begins(worker);
    registers.tracer = session_;
  }
  ~TraceLaunch() {
    if (session_ == nullptr) return;
    registers.tracer = nullptr;
    session_->launch_ends();
  }
  TraceLaunch(const TraceLaunch&) = delete;
  TraceLaunch& operator=(const TraceLaunch&) = delete;

 private:
  TraceHooks* session_;
};

}  // namespace tilegrad::simulator
