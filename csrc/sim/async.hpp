// SPDX-License-Identifier: MIT
// Asynchronous instructions (cp.async, cp.async.bulk, wgmma) and mbarriers.
//
// An operation is a closure that does the whole work when it is run, at a moment that the schedule
// chooses: `eager` when it is issued; `lazy` when a thread waits for its group, or, for those that
// signal an mbarrier, when no thread can go on otherwise; `random` anywhere between. So the closure
// must own what it needs (values, tensor maps, addresses): the issuing thread may have gone on or
// returned. It may call mbarrier_complete_tx / mbarrier_arrive, and must not block.
#pragma once

#include <cstdint>
#include <functional>
#include <typeinfo>
#include <utility>

#include "cluster.hpp"

namespace tilegrad::simulator {

// Which groups an operation belongs to. Operations of one kind and owner are run in the order of
// their groups; kMatrix ones strictly in order.
enum class AsyncKind : uint8_t {
  kCopy,    // cp.async: groups of a thread; owner = current_thread()
  kBulk,    // cp.async.bulk.. bulk_group (stores): groups of a thread
  kMatrix,  // wgmma.mma_async: groups of a warpgroup; owner = its first thread
  kSignal,  // no group: completion is signalled on an mbarrier by the closure
};

// Reports call the operation `what` ("cp.async") and name the site and the issuing thread.
struct AsyncTag {
  AsyncKind kind;
  unsigned owner;
  const char* what;
  Site site;
};

bool runs_at_once();  // the schedule is eager
void enqueue_operation(const AsyncTag& tag, std::function<void()> run);

template <class Function>
void issue(const AsyncTag& tag, Function&& run) {
  if (runs_at_once()) {
    const TraceMute mute;
    run();
  } else {
    enqueue_operation(tag, std::function<void()>(std::forward<Function>(run)));
  }
}

// Runs after all operations of its kind and owner that were issued before it, and may be driven
// when no thread can go on (cp.async.mbarrier.arrive: kind kCopy; the closure arrives).
void issue_after_previous(const AsyncTag& tag, std::function<void()> run);

// commit_group closes the open group (an empty one counts). wait_group returns when at most
// `allowed` of the closed groups are unfinished. For kCopy, wait_all is commit_group and wait 0.
void commit_group(AsyncKind kind, unsigned owner);
void wait_group(AsyncKind kind, unsigned owner, unsigned allowed);

// An mbarrier: 8 bytes of shared memory. As on the device, a phase ends when the pending arrivals
// and the pending transaction bytes are both 0; then the arrival count is set again and the parity
// of the current phase flips (the first phase has parity 0).
void mbarrier_init(uint64_t* barrier, unsigned count, Site site);
void mbarrier_invalidate(uint64_t* barrier, Site site);
// Returns a state token for mbarrier_wait_state.
uint64_t mbarrier_arrive(uint64_t* barrier, unsigned count, Site site);
// The same, without a token, on an mbarrier of any block of the cluster.
void mbarrier_arrive_in_cluster(uint64_t* barrier, Site site);
uint64_t mbarrier_arrive_expect_tx(uint64_t* barrier, uint32_t bytes, Site site);
void mbarrier_expect_tx(uint64_t* barrier, uint32_t bytes, Site site);
void mbarrier_complete_tx(uint64_t* barrier, uint32_t bytes, Site site);
// Has the phase of this parity completed? (test_wait.parity, try_wait.parity)
bool mbarrier_test_parity(const uint64_t* barrier, unsigned parity, Site site);
void mbarrier_wait_parity(const uint64_t* barrier, unsigned parity, Site site);
bool mbarrier_test_state(const uint64_t* barrier, uint64_t state, Site site);
void mbarrier_wait_state(const uint64_t* barrier, uint64_t state, Site site);

// An object that lives as long as the running block, one per type T, made by its default
// constructor at the first call: what instruction bodies keep between calls (wgmma: accumulators
// that are NaN for the kernel until the wait).
struct BlockObject {
  void* object = nullptr;
  void (*destroy)(void*) = nullptr;
};
BlockObject& block_object(const std::type_info& type);

template <class T>
T& block_local() {
  BlockObject& slot = block_object(typeid(T));
  if (slot.object == nullptr) {
    slot = {new T(), [](void* p) { delete static_cast<T*>(p); }};
  }
  return *static_cast<T*>(slot.object);
}

}  // namespace tilegrad::simulator
