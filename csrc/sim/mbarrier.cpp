// SPDX-License-Identifier: MIT
// mbarrier objects: what the opaque 64 bits hold is the hardware's secret; here they are
//   bits 0..19 pending arrivals, 20..39 arrivals a phase, 40..60 transaction bytes (signed),
//   61 parity of the current phase, 62..63 = 01 for an initialised object (poison is 11).
// Source: PTX ISA, Parallel Synchronization and Communication: mbarrier.
#include <string>

#include "async.hpp"
#include "launch.hpp"
#include "trace_hooks.hpp"

namespace tilegrad::simulator {
namespace {

constexpr uint64_t kCountMask = (uint64_t{1} << 20) - 1;
constexpr int64_t kTxLimit = (int64_t{1} << 20) - 1;

struct Phase {
  uint64_t pending, count;
  int64_t tx;
  unsigned parity;
};

uint64_t pack(const Phase& phase) {
  return phase.pending | phase.count << 20 |
         (static_cast<uint64_t>(phase.tx) & ((uint64_t{1} << 21) - 1)) << 40 |
         uint64_t{phase.parity} << 61 | uint64_t{1} << 62;
}

// Arrivals and the bytes of copies may come from another block of the cluster.
enum class Reach : uint8_t { kBlock, kCluster };

void check_address(const uint64_t* barrier, const char* what, Site site, Reach reach) {
  const bool good =
      is_shared(barrier) || (reach == Reach::kCluster && is_shared_in_cluster(barrier, what, site));
  if (!good) fail(std::string(what) + ": not shared memory", site);
  if (reinterpret_cast<uintptr_t>(barrier) % 8 != 0) {
    fail(std::string(what) + ": the object must be aligned to 8 bytes", site);
  }
}

Phase unpack(const uint64_t* barrier, const char* what, Site site, Reach reach = Reach::kBlock) {
  check_address(barrier, what, site, reach);
  const uint64_t bits = *barrier;
  if (bits >> 62 != 1) fail(std::string(what) + ": the mbarrier is not initialised", site);
  return {bits & kCountMask, bits >> 20 & kCountMask, static_cast<int64_t>(bits << 3) >> 43,
          static_cast<unsigned>(bits >> 61 & 1)};
}

void store(uint64_t* barrier, Phase phase) {
  if (phase.pending == 0 && phase.tx == 0) {
    phase.pending = phase.count;
    phase.parity ^= 1;
    if (tracer() != nullptr) tracer()->mbarrier_phase_ends(barrier);
  }
  *barrier = pack(phase);
}

void add_tx(Phase& phase, int64_t bytes, const char* what, Site site) {
  phase.tx += bytes;
  if (phase.tx > kTxLimit || phase.tx < -kTxLimit) {
    fail(std::string(what) + ": " + std::to_string(phase.tx) +
             " pending transaction bytes are out of range",
         site);
  }
}

uint64_t arrive(uint64_t* barrier, unsigned count, int64_t bytes, const char* what, Site site,
                Reach reach = Reach::kBlock) {
  Phase phase = unpack(barrier, what, site, reach);
  const uint64_t state = phase.parity;
  add_tx(phase, bytes, what, site);
  if (count == 0 || count > phase.pending) {
    fail(std::string(what) + ": " + std::to_string(count) + " arrivals where " +
             std::to_string(phase.pending) + " of " + std::to_string(phase.count) + " are pending",
         site);
  }
  phase.pending -= count;
  if (tracer() != nullptr) tracer()->mbarrier_arrive(barrier);
  store(barrier, phase);
  return state;
}

}  // namespace

void mbarrier_init(uint64_t* barrier, unsigned count, Site site) {
  check_address(barrier, "mbarrier.init", site, Reach::kBlock);
  if (count == 0 || count > kCountMask) {
    fail("mbarrier.init: the count must be 1..1048575; got " + std::to_string(count), site);
  }
  *barrier = pack({count, count, 0, 0});
  if (tracer() != nullptr) tracer()->mbarrier_init(barrier);
}

void mbarrier_invalidate(uint64_t* barrier, Site site) {
  unpack(barrier, "mbarrier.inval", site);
  *barrier = ~uint64_t{0};
}

uint64_t mbarrier_arrive(uint64_t* barrier, unsigned count, Site site) {
  return arrive(barrier, count, 0, "mbarrier.arrive", site);
}

void mbarrier_arrive_in_cluster(uint64_t* barrier, Site site) {
  arrive(barrier, 1, 0, "mbarrier.arrive", site, Reach::kCluster);
}

uint64_t mbarrier_arrive_expect_tx(uint64_t* barrier, uint32_t bytes, Site site) {
  return arrive(barrier, 1, bytes, "mbarrier.arrive.expect_tx", site);
}

void mbarrier_expect_tx(uint64_t* barrier, uint32_t bytes, Site site) {
  Phase phase = unpack(barrier, "mbarrier.expect_tx", site);
  add_tx(phase, bytes, "mbarrier.expect_tx", site);
  *barrier = pack(phase);
}

void mbarrier_complete_tx(uint64_t* barrier, uint32_t bytes, Site site) {
  Phase phase = unpack(barrier, "mbarrier.complete_tx", site, Reach::kCluster);
  add_tx(phase, -int64_t{bytes}, "mbarrier.complete_tx", site);
  store(barrier, phase);
}

bool mbarrier_test_parity(const uint64_t* barrier, unsigned parity, Site site) {
  const bool done = unpack(barrier, "mbarrier.test_wait", site).parity != (parity & 1);
  if (done && tracer() != nullptr) tracer()->mbarrier_acquire(barrier);
  return done;
}

void mbarrier_wait_parity(const uint64_t* barrier, unsigned parity, Site site) {
  block_until([=] { return mbarrier_test_parity(barrier, parity, site); }, site,
              "mbarrier.try_wait");
  if (tracer() != nullptr) tracer()->mbarrier_acquire(barrier);
}

bool mbarrier_test_state(const uint64_t* barrier, uint64_t state, Site site) {
  return mbarrier_test_parity(barrier, static_cast<unsigned>(state & 1), site);
}

void mbarrier_wait_state(const uint64_t* barrier, uint64_t state, Site site) {
  mbarrier_wait_parity(barrier, static_cast<unsigned>(state & 1), site);
}

}  // namespace tilegrad::simulator
