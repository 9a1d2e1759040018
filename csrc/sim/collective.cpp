// SPDX-License-Identifier: MIT
#include "collective.hpp"

#include <bit>
#include <cstring>

#include "scheduler.hpp"

namespace tilegrad::simulator {
namespace {

bool same_site(Site a, Site b) {
  return a.line == b.line && (a.file == b.file || (a.file != nullptr && b.file != nullptr &&
                                                   std::strcmp(a.file, b.file) == 0));
}

void wait_at(Thread& thread, const char* what, Site site) {
  thread.state = ThreadState::kWaiting;
  thread.what = what;
  thread.site = site;
}

std::string lanes_text(unsigned mask) {
  std::string text;
  for (unsigned i = 0; i < kLanes; ++i) {
    if (!(mask >> i & 1)) continue;
    unsigned last = i;
    while (last + 1 < kLanes && mask >> (last + 1) & 1) ++last;
    text += (text.empty() ? "" : ", ") + std::to_string(i);
    if (last > i) text += ".." + std::to_string(last);
    i = last;
  }
  return text;
}

// Sanity of a new arrival against the points of its warp; returns the one to join.
WarpPoint& join_point(Worker& worker, Warp& warp, unsigned lane, unsigned mask, const char* what,
                      Site site, CollectiveFunction function) {
  Thread& self = *worker.current;
  const auto bad = [&](const std::string& why) {
    self.site = site;
    worker.stop(std::string(what) + ": " + why + "; " + describe_thread(self));
  };
  if (!(mask >> lane & 1)) bad("the calling lane is not in the mask");
  if (mask & warp.returned) {
    bad("lanes of the mask have returned: " + lanes_text(mask & warp.returned));
  }
  WarpPoint* unused = nullptr;
  for (WarpPoint& point : warp.points) {
    if (point.mask == 0) {
      unused = &point;
    } else if (point.mask & mask) {
      if (!same_site(point.site, site) || point.function != function) {
        bad("lanes " + lanes_text(point.arrived) + " of the mask wait elsewhere, at " + point.what +
            ", " + to_string(point.site));
      }
      if (point.mask != mask) bad("the lanes pass different masks");
      return point;
    }
  }
  if (unused == nullptr) {
    warp.points.emplace_back();
    unused = &warp.points.back();
  }
  ++warp.points_in_use;
  unused->mask = mask;
  unused->expected = mask & warp.existing;
  unused->arrived = 0;
  unused->function = function;
  unused->what = what;
  unused->site = site;
  unused->records.fill(nullptr);
  return *unused;
}

}  // namespace

void fail(const std::string& what, Site site) {
  Worker* worker = registers.worker;
  if (worker == nullptr || worker->current == nullptr) {
    throw std::runtime_error("sim: " + what + "; " + to_string(site));
  }
  Thread& thread = worker->acting();
  thread.site = site;
  worker->stop(what + "; " + describe_thread(thread));
}

void warp_collective_erased(unsigned mask, void* record, CollectiveFunction function,
                            const char* what, Site site) {
  Worker& worker = running_worker(what);
  Thread& self = *worker.current;
  Warp& warp = self.block->warps[self.linear / kLanes];
  const unsigned lane = self.linear % kLanes;
  WarpPoint& point = join_point(worker, warp, lane, mask, what, site, function);
  point.arrived |= 1u << lane;
  point.records[lane] = record;
  wait_at(self, what, site);
  if (point.arrived == point.expected) {
    {
      const TraceMute mute;
      function(point.records.data(), point.expected);
    }
    if (tracer() != nullptr) tracer()->warp_met(point.expected, what);
    const unsigned lanes = point.expected;
    point.mask = 0;
    --warp.points_in_use;
    Thread* first = &self - lane;
    if (worker.schedule.order == Order::kReverse) {
      for (unsigned i = kLanes; i-- > 0;) {
        if (lanes >> i & 1) worker.make_ready(first + i);
      }
    } else {
      for (unsigned i = 0; i < kLanes; ++i) {
        if (lanes >> i & 1) worker.make_ready(first + i);
      }
    }
  }
  worker.suspend();
}

void group_collective_erased(unsigned first_thread, unsigned count, void* record,
                             GroupFunction function, const char* what, Site site) {
  Worker& worker = running_worker(what);
  Thread& self = *worker.current;
  if (count == 0 || first_thread % count != 0 || first_thread + count > worker.block_threads ||
      self.linear < first_thread || self.linear >= first_thread + count) {
    fail(std::string(what) + ": threads " + std::to_string(first_thread) + ".." +
             std::to_string(first_thread + count - 1) +
             " are not an aligned group of the block with the calling thread in it",
         site);
  }
  std::vector<GroupPoint>& groups = self.block->groups;
  size_t at = 0;
  while (at < groups.size() && groups[at].first != first_thread) ++at;
  if (at == groups.size()) {
    groups.push_back(
        {first_thread, count, 0, function, what, site, std::vector<void*>(count, nullptr)});
  }
  GroupPoint& point = groups[at];
  if (point.count != count || point.function != function || !same_site(point.site, site)) {
    fail(std::string(what) + ": threads of the group wait elsewhere, at " + point.what + ", " +
             to_string(point.site),
         site);
  }
  ++point.arrived;
  point.records[self.linear - first_thread] = record;
  wait_at(self, what, site);
  if (point.arrived == count) {
    {
      const TraceMute mute;
      function(point.records.data(), count);
    }
    if (tracer() != nullptr) tracer()->group_met(first_thread, count);
    groups.erase(groups.begin() + static_cast<std::ptrdiff_t>(at));
    const bool reverse = worker.schedule.order == Order::kReverse;
    Thread* const first = &self - self.linear + first_thread;
    for (unsigned i = 0; i < count; ++i) {
      worker.make_ready(first + (reverse ? count - 1 - i : i));
    }
  }
  worker.suspend();
}

namespace {

// The current thread has come to the barrier; if it is the last, all may go on.
void arrive_at(Worker& worker, Barrier& barrier, bool waits) {
  ++barrier.arrived;
  if (waits) barrier.waiters.push_back(worker.current);
  if (tracer() != nullptr) {
    const auto id = static_cast<unsigned>(&barrier - worker.current->block->barriers.data());
    tracer()->barrier(id, waits, barrier.arrived == barrier.expected);
  }
  if (barrier.arrived != barrier.expected) return;
  for (Thread* waiter : barrier.waiters) waiter->result = barrier.votes;
  worker.make_ready(barrier.waiters);
  barrier.arrived = barrier.votes = 0;
}

void named_barrier(unsigned id, unsigned count, bool waits, const char* what, Site site) {
  Worker& worker = running_worker(what);
  const auto bad = [&](const std::string& why) {
    fail(std::string(what) + " " + std::to_string(id) + ", " + std::to_string(count) + ": " + why,
         site);
  };
  if (id >= kNamedBarriers) bad("barriers are 0..15");
  if (count == 0 || count % kLanes != 0 || count > worker.block_warps * kLanes) {
    bad("the count must be a multiple of 32 and at most the block");
  }
  Barrier& barrier = worker.current->block->barriers[id];
  if (barrier.arrived == 0) {
    barrier.expected = count;
    barrier.whole_block = false;
    barrier.site = site;
  } else if (barrier.whole_block || barrier.expected != count) {
    bad("the barrier is in use for " + std::to_string(barrier.expected) + " threads, from " +
        to_string(barrier.site));
  }
  if (waits) wait_at(*worker.current, what, site);
  arrive_at(worker, barrier, waits);
  if (waits) worker.suspend();
}

}  // namespace

unsigned block_barrier(bool vote, const char* what, Site site) {
  Worker& worker = running_worker(what);
  Thread& self = *worker.current;
  const Block& block = *self.block;
  Barrier& barrier = self.block->barriers[0];
  if (barrier.arrived == 0) {
    barrier.expected = worker.block_threads;
    barrier.whole_block = true;
    barrier.site = site;
  } else if (!barrier.whole_block || !same_site(barrier.site, site)) {
    const Thread& other = *barrier.waiters.front();
    self.site = site;
    worker.stop(std::string("divergent ") + what + ": " + describe_thread(self) +
                " waits here, thread " + to_string(other.index) + " waits at " + other.what + ", " +
                to_string(other.site));
  }
  wait_at(self, what, site);
  if (block.returned != 0) {
    unsigned gone = 0;
    while (gone < worker.block_warps && block.warps[gone].returned == 0) ++gone;
    const unsigned lane = static_cast<unsigned>(std::countr_zero(block.warps[gone].returned));
    const Thread& returned = *(&self - self.linear + gone * kLanes + lane);
    worker.stop(std::string(what) + " after a thread of the block has returned; " +
                describe_thread(self) + " waits, thread " + to_string(returned.index) +
                " has returned");
  }
  barrier.votes += vote;
  arrive_at(worker, barrier, true);
  worker.suspend();
  return self.result;
}

void named_barrier_sync(unsigned id, unsigned count, Site site) {
  named_barrier(id, count, true, "bar.sync", site);
}
void named_barrier_arrive(unsigned id, unsigned count, Site site) {
  named_barrier(id, count, false, "bar.arrive", site);
}

void block_until_erased(Predicate predicate, const void* closure, const char* what, Site site) {
  Worker& worker = running_worker(what);
  Thread& self = *worker.current;
  self.predicate = predicate;
  self.closure = closure;
  wait_at(self, what, site);
  worker.pollers.push_back(&self);
  worker.suspend();
}

}  // namespace tilegrad::simulator
