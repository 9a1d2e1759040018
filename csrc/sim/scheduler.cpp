// SPDX-License-Identifier: MIT
// Runs the resident blocks: their threads one after another on one stack; a thread that blocks
// keeps that stack as its fiber and the next thread gets another one.
#include "scheduler.hpp"

#include <pthread.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <utility>

#include "trace_hooks.hpp"

namespace tilegrad::simulator {

Worker::Worker() {
  describe_host_stack(host);
  ready.resize(2 * kMaxThreads);
  signal_stack.resize(64 * 1024);
}
Worker::~Worker() { forget_blocks(); }

Worker& this_worker() {
  // A key, not a thread_local object: registers is the only one of those.
  static const pthread_key_t key = [] {
    pthread_key_t made;
    if (pthread_key_create(&made, [](void* p) { delete static_cast<Worker*>(p); }) != 0) {
      throw std::runtime_error("sim: pthread_key_create failed");
    }
    return made;
  }();
  if (registers.worker == nullptr) {
    registers.worker = new Worker();
    pthread_setspecific(key, registers.worker);
  }
  return *registers.worker;
}

void not_in_kernel(const char* what) {
  throw std::logic_error(std::string("sim: ") + what + " is called outside a kernel");
}

void Worker::index_threads(dim3 size) {
  indexed_for = size;
  indexed_blocks = resident;
  threads.assign(size_t{resident} * block_threads, Thread{});
  size_t ring = 2 * kMaxThreads;
  while (ring < 2 * threads.size()) ring *= 2;
  ready.resize(ring);
  while (blocks.size() < resident) blocks.push_back(std::make_unique<Block>());
  Thread* thread = threads.data();
  for (unsigned rank = 0; rank < resident; ++rank) {
    Block& block = *blocks[rank];
    block.rank = rank;
    unsigned i = 0;
    for (unsigned z = 0; z < size.z; ++z) {
      for (unsigned y = 0; y < size.y; ++y) {
        for (unsigned x = 0; x < size.x; ++x, ++i, ++thread) {
          thread->index = {x, y, z};
          thread->linear = i;
          thread->number = rank * block_threads + i;
          thread->block = &block;
        }
      }
    }
    block.warps.resize(block_warps);
    for (unsigned w = 0; w < block_warps; ++w) {
      const unsigned lanes = std::min(kLanes, block_threads - w * kLanes);
      block.warps[w].existing = lanes == kLanes ? ~0u : (1u << lanes) - 1;
    }
  }
  start_order.resize(threads.size());
  for (unsigned k = 0; k < start_order.size(); ++k) start_order[k] = k;
}

void Worker::prepare(const KernelCall& kernel_call) {
  call = &kernel_call;
  schedule = current_schedule();
  random.state = schedule.seed;
  const dim3 size = kernel_call.block, grid = kernel_call.grid;
  block_threads = size.x * size.y * size.z;
  block_warps = (block_threads + kLanes - 1) / kLanes;
  cluster = kernel_call.residency.cluster;
  resident = kernel_call.residency.cooperative ? grid.x * grid.y * grid.z : cluster;
  if (size.x != indexed_for.x || size.y != indexed_for.y || size.z != indexed_for.z ||
      resident != indexed_blocks) {
    index_threads(size);
  }
  clusters.assign(resident / cluster, Cluster{});
  for (unsigned rank = 0; rank < resident; ++rank) {
    blocks[rank]->cluster = &clusters[rank / cluster];
    blocks[rank]->arena.resize(kernel_call.dynamic_bytes);
  }
  registers.block_size = {size.x, size.y, size.z};
  registers.grid_size = kernel_call.grid;
  statics.use(kernel_call.kernel);
}

void Worker::begin_blocks(uint64_t first) {
  started = returned = 0;
  for (unsigned rank = 0; rank < resident; ++rank) {
    Block& block = *blocks[rank];
    block.index = block_at(first + rank, call->grid);
    block.returned = 0;
    for (Warp& warp : block.warps) warp.returned = 0;
    block.arena.open();
    block.arena.poison();
  }
  for (Cluster& each : clusters) {
    each.arrived = each.returned = 0;
    each.waiters.clear();
  }
  if (schedule.order == Order::kRandom) {
    for (unsigned i = static_cast<unsigned>(threads.size()); i > 1; --i) {
      std::swap(start_order[i - 1], start_order[random.below(i)]);
    }
  }
  failure.clear();
  memory_fault = false;
}

void Block::destroy_objects() {
  for (auto& [type, object] : objects) object.destroy(object.object);
  objects.clear();
}

void Block::forget() {
  for (Warp& warp : warps) {
    warp.points_in_use = 0;
    for (WarpPoint& point : warp.points) point.mask = 0;
  }
  for (Barrier& barrier : barriers) {
    barrier.arrived = barrier.votes = 0;
    barrier.waiters.clear();
  }
  groups.clear();
  destroy_objects();
}

void Worker::forget_blocks() {
  pollers.clear();
  ready_head = ready_tail = 0;
  clear_operations();
  for (auto& block : blocks) block->forget();
  free_fibers.clear();
  for (auto& each : fibers) {
    reset_fiber(*each, fiber_main);
    free_fibers.push_back(each.get());
  }
}

void Worker::check_damage(const Block& block) {
  if (!failure.empty() || !block.arena.is_open()) return;
  const std::string damage = block.arena.damage();
  if (!damage.empty()) failure = "out of bounds: " + damage + "; block " + to_string(block.index);
}

void Worker::run_blocks(uint64_t first) {
  begin_blocks(first);
  statics.begin_block();
  if (tracer() != nullptr) tracer()->blocks_begin(first);
  starting = start_next();
  fiber = take_fiber();
  switch_fiber(host, *fiber);
  if (tracer() != nullptr) tracer()->blocks_end();
  statics.end_block();
  if (memory_fault) failure = describe_memory_fault(*this);
  fiber = nullptr;
  current = polled = nullptr;
  operation = nullptr;
  for (unsigned rank = 0; rank < resident; ++rank) check_damage(*blocks[rank]);
  if (resident > 1 && statics.bytes() != 0) {
    failure =
        "a kernel of a cluster or a cooperative grid has dynamic shared memory only here; this one "
        "has " +
        std::to_string(statics.bytes()) + " bytes of static __shared__";
  }
  if (!failure.empty()) {
    const std::string why = std::exchange(failure, {});
    forget_blocks();
    for (auto& block : blocks) block->arena.renew();
    throw std::runtime_error("sim: " + why);
  }
  for (unsigned rank = 0; rank < resident; ++rank) blocks[rank]->destroy_objects();
}

Fiber* Worker::take_fiber() {
  if (free_fibers.empty()) {
    fibers.push_back(make_fiber(fibers.size()));
    reset_fiber(*fibers.back(), fiber_main);
    return fibers.back().get();
  }
  Fiber* taken = free_fibers.back();
  free_fibers.pop_back();
  return taken;
}

void fiber_main() {
  fiber_entered();
  Worker& worker = *registers.worker;
  for (;;) {
    Thread* next = nullptr;
    try {
      next = worker.run_threads(worker.starting);
      worker.free_fibers.push_back(worker.fiber);
    } catch (...) {  // nobody is above a fiber; the text needs no memory
      worker.stop("out of memory");
    }
    Fiber& self = *worker.fiber;
    worker.fiber = next == nullptr ? &worker.host : next->fiber;
    if (next != nullptr) worker.current = next;
    switch_fiber(self, *worker.fiber);
  }
}

// Runs one thread after another on this fiber; returns the one to go on with elsewhere.
Thread* Worker::run_threads(Thread* thread) {
  for (;;) {
    run_thread(thread);
    Thread* next = next_thread();
    if (next == nullptr || next->fiber != nullptr) return next;
    thread = next;
  }
}

void Worker::run_thread(Thread* thread) {
  current = thread;
  thread->state = ThreadState::kRunning;
  thread->site = {};
  thread->at_cluster_barrier = thread->waited_for_grid = false;
  registers.thread_index = thread->index;
  registers.linear_thread = thread->linear;
  registers.block_index = thread->block->index;
  try {
    call->invoke(call->kernel, call->arguments.get());
  } catch (const std::exception& error) {
    failure = std::string("the kernel threw an exception: ") + error.what();
  } catch (...) {
    failure = "the kernel threw an exception";
  }
  if (!failure.empty()) stop(failure + "; " + describe_thread(*thread));
  thread_returned(thread);
}

void Worker::thread_returned(Thread* thread) {
  if (call->residency.overlaps && !thread->waited_for_grid) {
    stop(
        "a kernel that may start before the one ahead of it has ended calls grid_dependency_wait "
        "first; " +
        describe_thread(*thread) + " did not");
  }
  thread->state = ThreadState::kReturned;
  ++returned;
  Block& block = *thread->block;
  ++block.returned;
  Warp& warp = block.warps[thread->linear / kLanes];
  const unsigned bit = 1u << thread->linear % kLanes;
  warp.returned |= bit;
  const Barrier& barrier = block.barriers[0];
  if (barrier.arrived != 0 && barrier.whole_block) {
    const Thread& waiter = *barrier.waiters.front();
    stop("a thread returned while others of its block wait at " + std::string(waiter.what) + "; " +
         describe_thread(*thread) + " returned, thread " + to_string(waiter.index) + " waits at " +
         to_string(barrier.site));
  }
  for (const WarpPoint& point : warp.points) {
    if (point.mask & bit) {
      stop("a lane of the mask returned while others wait at " + std::string(point.what) + "; " +
           describe_thread(*thread) + " returned, lanes of its warp wait at " +
           to_string(point.site));
    }
  }
  leave_cluster(*thread);
  if (resident > 1 && block.returned == block_threads) block_ended(block);
}

Thread* Worker::start_next() {
  unsigned i = started++;
  const auto thread_count = static_cast<unsigned>(threads.size());
  if (schedule.order == Order::kReverse) i = thread_count - 1 - i;
  if (schedule.order == Order::kRandom) i = start_order[i];
  Thread* thread = &threads[i];
  thread->fiber = nullptr;
  return thread;
}

// The thread to go on with; nullptr when all have returned. It is ready if it has a fiber.
Thread* Worker::next_thread() {
  const uint64_t size_mask = ready.size() - 1;
  const auto thread_count = static_cast<unsigned>(threads.size());
  for (;;) {
    if (schedule.order == Order::kRandom || schedule.moment == AsyncMoment::kRandom) {
      if (!busy_queues.empty() && random.below(8) == 0) drive_operation();
      if (!pollers.empty() && random.below(4) == 0) poll();
    }
    const uint64_t count = ready_tail - ready_head;
    if (schedule.order == Order::kRandom && count + (started < thread_count) > 1) {
      const uint64_t pick = random.below(count + (started < thread_count));
      if (pick == count) return start_next();
      std::swap(ready[ready_head & size_mask], ready[(ready_head + pick) & size_mask]);
    }
    if (count != 0) return ready[ready_head++ & size_mask];
    if (started < thread_count) return start_next();
    if (returned == thread_count) {
      finish_operations();
      return nullptr;
    }
    if (!pollers.empty() && poll()) continue;
    if (drive_operation()) continue;
    deadlock();
  }
}

void Worker::suspend() {
  Thread* self = current;
  Fiber* self_fiber = fiber;
  self->fiber = self_fiber;
  Thread* next = next_thread();
  if (next != self) {
    if (next->fiber == nullptr) {
      starting = next;
      fiber = take_fiber();
    } else {
      current = next;
      fiber = next->fiber;
    }
    switch_fiber(*self_fiber, *fiber);
  }
  current = self;
  fiber = self_fiber;
  self->state = ThreadState::kRunning;
  registers.thread_index = self->index;
  registers.linear_thread = self->linear;
  registers.block_index = self->block->index;
}

void Worker::make_ready(Thread* thread) {
  thread->state = ThreadState::kReady;
  ready[ready_tail++ & (ready.size() - 1)] = thread;
}

void Worker::make_ready(std::vector<Thread*>& waiters) {
  const auto in_order = [reverse = schedule.order == Order::kReverse](const Thread* a,
                                                                      const Thread* b) {
    return reverse ? a->number > b->number : a->number < b->number;
  };
  if (!std::is_sorted(waiters.begin(), waiters.end(), in_order)) {
    std::sort(waiters.begin(), waiters.end(), in_order);
  }
  for (Thread* waiter : waiters) make_ready(waiter);
  waiters.clear();
}

bool Worker::poll() {
  const TraceMute mute;
  std::vector<Thread*> now;
  for (size_t i = 0; i < pollers.size();) {
    Thread* thread = pollers[i];
    polled = thread;
    if (thread->predicate(thread->closure)) {
      now.push_back(thread);
      pollers[i] = pollers.back();
      pollers.pop_back();
    } else {
      ++i;
    }
  }
  polled = nullptr;
  if (now.empty()) return false;
  make_ready(now);
  return true;
}

void Worker::stop(std::string why) {
  failure = std::move(why);
  abandon_fiber(host);
}

void Worker::deadlock() { stop("deadlock: no thread can go on; " + describe_waiting(*this)); }

}  // namespace tilegrad::simulator
