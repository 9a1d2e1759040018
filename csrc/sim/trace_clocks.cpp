// SPDX-License-Identifier: MIT
#include "trace_clocks.hpp"

#include <algorithm>

namespace tilegrad::simulator {
namespace {

constexpr unsigned kMostActors = 1u << kActorBits;

}  // namespace

void Clocks::begin_launch(unsigned block_threads, unsigned blocks) {
  block_threads_ = block_threads;
  threads_ = block_threads * blocks;
  bases_.resize(blocks);
  base_of_.resize(threads_);
  for (unsigned t = 0; t < threads_; ++t) base_of_[t] = &bases_[t / block_threads];
  atomics_.clear();
}

void Clocks::begin_round(uint64_t round) {
  round_ = round & ((uint64_t{1} << (64 - kActorBits - kClockBits)) - 1);
  clock_.assign(threads_, 1);
  for (Vector& base : bases_) base.assign(2 * size_t{threads_}, 0);
  own_copy_.assign(threads_, 0);
  engines_.assign(threads_, Engine{});
  for (unsigned t = 0; t < threads_; ++t) engines_[t].issuer = t;
  known_.resize(threads_);
  knows_more_.assign(threads_, 0);
  actors_.clear();
  mbarriers_.clear();
  shared_atomics_.clear();
  foreign_.clear();
  foreign_bases_.assign(bases_.size(), {});
}

void Clocks::join(Vector& to, const Vector& from) {
  if (to.size() < from.size()) to.resize(from.size(), 0);
  uint32_t* a = to.data();
  const uint32_t* b = from.data();
  for (size_t i = 0; i < from.size(); ++i) a[i] = std::max(a[i], b[i]);
}

void Clocks::join(Foreign& to, const Foreign& from) {
  for (const auto& [block, vector] : from) join(to[block], vector);
}

Clocks::Vector& Clocks::vector_of(unsigned thread) {
  if (!knows_more_[thread]) {
    knows_more_[thread] = 1;
    known_[thread].assign(base(thread).size(), 0);
  }
  return known_[thread];
}

unsigned Clocks::new_actor() {
  if (threads_ + engines_.size() < kMostActors) {
    engines_.emplace_back();
    for (Vector& base : bases_) base.push_back(0);
  }
  return threads_ + static_cast<unsigned>(engines_.size()) - 1;
}

unsigned Clocks::actor_of(AsyncKind kind, unsigned owner) {
  if (kind == AsyncKind::kCopy) return threads_ + owner;
  const auto [at, added] = actors_.try_emplace(static_cast<uint32_t>(kind) << 24 | owner, 0);
  if (added) at->second = new_actor();
  return at->second;
}

Epoch Clocks::engine_epoch(AsyncKind kind, unsigned owner, const uint64_t* barrier,
                           unsigned issuer) {
  const unsigned actor = barrier != nullptr ? mbarrier(barrier).actor : actor_of(kind, owner);
  Engine& engine_used = engine(actor);
  engine_used.issuer = issuer;
  return pack(actor, engine_used.closed + uint64_t{1});
}

// Whether the thread knows of an epoch that not all of its block know of.
bool Clocks::told(Epoch epoch, unsigned thread, bool global) const {
  const unsigned actor = actor_of(epoch);
  const uint32_t clock = clock_of(epoch);
  const uint64_t round = round_of(epoch);
  if (round != round_) {
    if (!global) return true;
    const auto holds = [&](const Foreign& foreign) {
      const auto at = foreign.find(round);
      return at != foreign.end() && actor < at->second.size() && at->second[actor] >= clock;
    };
    return holds(foreign_bases_[thread / block_threads_]) ||
           (thread < foreign_.size() && foreign_[thread] && holds(*foreign_[thread]));
  }
  if (actor == threads_ + thread) return clock <= own_copy_[thread];
  if (!knows_more_[thread]) return false;
  const Vector& known = known_[thread];
  return actor < known.size() && known[actor] >= clock;
}

unsigned Clocks::thread_of(Epoch epoch) const {
  const unsigned actor = actor_of(epoch);
  if (actor < threads_) return actor;
  const unsigned i = actor - threads_;
  return i < engines_.size() ? engines_[i].issuer : 0;
}

void Clocks::full_barrier(unsigned block) {
  Vector& base = bases_[block];
  const unsigned first = block * block_threads_, last = first + block_threads_;
  const bool alone = bases_.size() == 1;
  for (unsigned t = first; t < last; ++t) {
    uint32_t& copies = base[threads_ + t];
    copies = std::max(copies, own_copy_[t]);
    if (!knows_more_[t]) continue;
    knows_more_[t] = 0;
    const Vector& known = known_[t];
    // Of the block's own threads all is known below.
    for (size_t i = alone ? threads_ : 0; i < known.size(); ++i) {
      base[i] = std::max(base[i], known[i]);
    }
  }
  for (unsigned t = first; t < last; ++t) {
    base[t] = clock_[t]++;
    if (t >= foreign_.size() || !foreign_[t]) continue;
    join(foreign_bases_[block], *foreign_[t]);
    foreign_[t].reset();
  }
}

void Clocks::meet(const std::vector<unsigned>& threads, const Vector* more) {
  if (threads.size() == block_threads_ && more == nullptr) {
    return full_barrier(threads.front() / block_threads_);
  }
  scratch_.assign(bases_.front().size(), 0);
  if (more != nullptr) join(scratch_, *more);
  for (const unsigned t : threads) release(t, scratch_);
  for (const unsigned t : threads) acquire(t, scratch_);
}

void Clocks::release(unsigned thread, Vector& to) {
  const Vector& known = base(thread);
  if (to.size() < known.size()) to.resize(known.size(), 0);
  if (bases_.size() > 1) join(to, known);  // other blocks do not know it
  if (knows_more_[thread]) join(to, known_[thread]);
  to[thread] = std::max(to[thread], clock_[thread]);
  to[threads_ + thread] = std::max(to[threads_ + thread], own_copy_[thread]);
  ++clock_[thread];
}

void Clocks::acquire(unsigned thread, const Vector& from) { join(vector_of(thread), from); }

void Clocks::commit_group(AsyncKind kind, unsigned owner) {
  ++engine(actor_of(kind, owner)).closed;
}

void Clocks::wait_group(unsigned thread, AsyncKind kind, unsigned owner, unsigned allowed) {
  const unsigned actor = actor_of(kind, owner);
  const uint32_t closed = engine(actor).closed;
  if (closed < allowed) return;
  const uint32_t finished = closed - allowed;
  if (actor == threads_ + thread) {
    own_copy_[thread] = std::max(own_copy_[thread], finished);
    return;
  }
  Vector& known = vector_of(thread);
  if (known.size() <= actor) known.resize(base(thread).size(), 0);
  known[actor] = std::max(known[actor], finished);
}

Clocks::Mbarrier& Clocks::mbarrier(const void* barrier) {
  const auto at = mbarriers_.find(barrier);
  if (at != mbarriers_.end()) return at->second;
  return mbarriers_.emplace(barrier, Mbarrier{new_actor(), {}, {}}).first->second;
}

// What the copies of an earlier object at this address did stays known.
void Clocks::mbarrier_init(const void* barrier) {
  Mbarrier& each = mbarrier(barrier);
  each.pending.clear();
  each.completed.clear();
}

void Clocks::mbarrier_arrive(const void* barrier, unsigned thread) {
  release(thread, mbarrier(barrier).pending);
}

void Clocks::mbarrier_phase_ends(const void* barrier) {
  Mbarrier& each = mbarrier(barrier);
  join(each.completed, each.pending);
  each.pending.clear();
  if (each.completed.size() <= each.actor) each.completed.resize(bases_.front().size(), 0);
  each.completed[each.actor] = ++engine(each.actor).closed;
}

void Clocks::mbarrier_acquire(const void* barrier, unsigned thread) {
  acquire(thread, mbarrier(barrier).completed);
}

void Clocks::atomic(unsigned thread, uintptr_t address, bool shared) {
  if (shared) {
    Vector& known = shared_atomics_[address];
    acquire(thread, known);
    release(thread, known);
    return;
  }
  Foreign& known = atomics_[address].known;
  for (const auto& [round, vector] : known) {
    if (round == round_) {
      acquire(thread, vector);
    } else {
      if (foreign_.size() < threads_) foreign_.resize(threads_);
      if (!foreign_[thread]) foreign_[thread] = std::make_unique<Foreign>();
      join((*foreign_[thread])[round], vector);
    }
  }
  join(known, foreign_bases_[thread / block_threads_]);
  if (thread < foreign_.size() && foreign_[thread]) join(known, *foreign_[thread]);
  Vector& own = known[round_];
  join(own, base(thread));
  release(thread, own);
}

}  // namespace tilegrad::simulator
