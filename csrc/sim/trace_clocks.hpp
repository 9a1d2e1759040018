// SPDX-License-Identifier: MIT
// Vector clocks: which accesses of a launch are ordered before which.
//
// An actor is a thread of the resident blocks or an engine that works for it: the cp.async copies
// of a thread, the bulk stores of a thread, the wgmma of a warpgroup, or the copies that signal one
// mbarrier. Each has a clock, which goes on when the actor tells others what it did (a thread) or
// when a group or phase ends (an engine). An epoch is a moment of an actor; it is ordered before
// the present of a thread if that thread has been told so, directly or through others.
// Threads are numbered through the resident blocks, which are one round of the launch.
// Source: Flanagan, Freund, FastTrack: Efficient and Precise Dynamic Race Detection (PLDI 2009).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "async.hpp"

namespace tilegrad::simulator {

// [round: 22 bits][clock: 26][actor: 16]; 0 is no epoch.
using Epoch = uint64_t;
inline constexpr unsigned kActorBits = 16, kClockBits = 26;

class Clocks {
 public:
  void begin_launch(unsigned block_threads, unsigned blocks);
  void begin_round(uint64_t round);

  // The running thread's present, or that of an engine that it gives work to.
  Epoch now(unsigned thread) const { return pack(thread, clock_[thread]); }
  Epoch engine_epoch(AsyncKind kind, unsigned owner, const uint64_t* barrier, unsigned issuer);

  // Is the epoch ordered before the present of the thread? One of another round only through
  // atomics: `global` says whether another round's epoch counts at all (shared memory is a new
  // one).
  bool ordered(Epoch epoch, unsigned thread, bool global) const {
    if (epoch == 0) return true;
    const unsigned actor = actor_of(epoch);
    if (round_of(epoch) == round_ &&
        (actor == thread || clock_of(epoch) <= (*base_of_[thread])[actor])) {
      return true;
    }
    return told(epoch, thread, global);
  }

  static uint64_t round_of(Epoch epoch) { return epoch >> (kActorBits + kClockBits); }
  // The thread behind an epoch of the running round: who acts, or for whom the engine does.
  unsigned thread_of(Epoch epoch) const;

  // The threads, of one block, have met: each knows what any of them, and `more` (or nullptr),
  // knew.
  using Vector = std::vector<uint32_t>;
  void meet(const std::vector<unsigned>& threads, const Vector* more);
  // Adds what the thread knows to `to`, and lets its clock go on.
  void release(unsigned thread, Vector& to);
  void acquire(unsigned thread, const Vector& from);

  void commit_group(AsyncKind kind, unsigned owner);
  void wait_group(unsigned thread, AsyncKind kind, unsigned owner, unsigned allowed);

  // An mbarrier, or the barrier of a cluster.
  void mbarrier_init(const void* barrier);
  void mbarrier_arrive(const void* barrier, unsigned thread);
  void mbarrier_phase_ends(const void* barrier);
  void mbarrier_acquire(const void* barrier, unsigned thread);

  // Atomics on one address are ordered one after the other, and order what comes before and after.
  void atomic(unsigned thread, uintptr_t address, bool shared);

 private:
  struct Engine {
    uint32_t closed = 0;  // groups, or phases
    unsigned issuer = 0;
  };
  struct Mbarrier {
    unsigned actor;
    Vector pending, completed;
  };
  // What is known of other rounds.
  using Foreign = std::map<uint64_t, Vector>;

  Epoch pack(unsigned actor, uint64_t clock) const {
    return round_ << (kActorBits + kClockBits) | (clock & kClockMask) << kActorBits | actor;
  }
  static unsigned actor_of(Epoch epoch) {
    return static_cast<unsigned>(epoch & ((1u << kActorBits) - 1));
  }
  static uint32_t clock_of(Epoch epoch) {
    return static_cast<uint32_t>(epoch >> kActorBits & kClockMask);
  }
  // All threads of the block have met.
  void full_barrier(unsigned block);
  bool told(Epoch epoch, unsigned thread, bool global) const;
  unsigned actor_of(AsyncKind kind, unsigned owner);
  unsigned new_actor();
  Engine& engine(unsigned actor) { return engines_[actor - threads_]; }
  Mbarrier& mbarrier(const void* barrier);
  const Vector& base(unsigned thread) const { return *base_of_[thread]; }
  Vector& vector_of(unsigned thread);
  static void join(Vector& to, const Vector& from);
  static void join(Foreign& to, const Foreign& from);

  static constexpr uint64_t kClockMask = (uint64_t{1} << kClockBits) - 1;

  unsigned threads_ = 0, block_threads_ = 0;
  uint64_t round_ = 0;
  std::vector<uint32_t> clock_;      // of threads
  std::vector<Vector> bases_;        // by block: what all of its threads know, by actor
  std::vector<Vector*> base_of_;     // by thread
  std::vector<uint32_t> own_copy_;   // what a thread knows of its own cp.async
  std::vector<Engine> engines_;      // by actor - threads: first each thread's cp.async
  std::vector<Vector> known_;        // by thread; empty: nothing beyond base
  std::vector<uint8_t> knows_more_;  // whether known_ holds something
  std::unordered_map<uint32_t, unsigned> actors_;  // by kind and owner
  std::unordered_map<const void*, Mbarrier> mbarriers_;
  Vector scratch_;

  struct Atomic {
    Foreign known;
  };
  std::unordered_map<uintptr_t, Atomic> atomics_;         // of the launch
  std::unordered_map<uintptr_t, Vector> shared_atomics_;  // of the round
  std::vector<std::unique_ptr<Foreign>> foreign_;         // by thread
  std::vector<Foreign> foreign_bases_;                    // by block
};

}  // namespace tilegrad::simulator
