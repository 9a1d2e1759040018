// SPDX-License-Identifier: MIT
// Runs one block: its threads one after another on one stack; a thread that blocks keeps that stack
// as its fiber and the next thread gets another one.
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
Worker::~Worker() { forget_block(); }

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

void Worker::prepare(const KernelCall& kernel_call) {
  call = &kernel_call;
  schedule = current_schedule();
  random.state = schedule.seed;
  const dim3 size = kernel_call.block;
  thread_count = size.x * size.y * size.z;
  warp_count = (thread_count + kLanes - 1) / kLanes;
  if (size.x != indexed_for.x || size.y != indexed_for.y || size.z != indexed_for.z) {
    indexed_for = size;
    threads.assign(thread_count, Thread{});
    unsigned i = 0;
    for (unsigned z = 0; z < size.z; ++z) {
      for (unsigned y = 0; y < size.y; ++y) {
        for (unsigned x = 0; x < size.x; ++x, ++i) {
          threads[i].index = {x, y, z};
          threads[i].linear = i;
        }
      }
    }
    warps.resize(warp_count);
    for (unsigned w = 0; w < warp_count; ++w) {
      const unsigned lanes = std::min(kLanes, thread_count - w * kLanes);
      warps[w].existing = lanes == kLanes ? ~0u : (1u << lanes) - 1;
    }
    start_order.resize(thread_count);
    for (unsigned k = 0; k < thread_count; ++k) start_order[k] = k;
  }
  registers.block_size = {size.x, size.y, size.z};
  registers.grid_size = kernel_call.grid;
  arena.resize(kernel_call.dynamic_bytes);
  statics.use(kernel_call.kernel);
}

void Worker::begin_block(uint3 index) {
  block = index;
  registers.block_index = index;
  started = returned = 0;
  for (Warp& warp : warps) warp.returned = 0;
  if (schedule.order == Order::kRandom) {
    for (unsigned i = thread_count; i > 1; --i) {
      std::swap(start_order[i - 1], start_order[random.below(i)]);
    }
  }
  failure.clear();
  memory_fault = false;
  arena.poison();
}

// After a failure the threads of the block are gone, wherever they were.
void Worker::forget_block() {
  for (Warp& warp : warps) {
    warp.points_in_use = 0;
    for (WarpPoint& point : warp.points) point.mask = 0;
  }
  for (Barrier& barrier : barriers) {
    barrier.arrived = barrier.votes = 0;
    barrier.waiters.clear();
  }
  groups.clear();
  pollers.clear();
  ready_head = ready_tail = 0;
  clear_operations();
  for (auto& [type, object] : objects) object.destroy(object.object);
  objects.clear();
  free_fibers.clear();
  for (auto& each : fibers) {
    reset_fiber(*each, fiber_main);
    free_fibers.push_back(each.get());
  }
}

void Worker::run_block(uint3 index) {
  begin_block(index);
  statics.begin_block();
  if (tracer() != nullptr) tracer()->block_begins();
  starting = start_next();
  fiber = take_fiber();
  switch_fiber(host, *fiber);
  if (tracer() != nullptr) tracer()->block_ends();
  statics.end_block();
  if (memory_fault) failure = describe_memory_fault(*this);
  fiber = nullptr;
  current = nullptr;
  operation = nullptr;
  if (failure.empty()) {
    const std::string damage = arena.damage();
    if (!damage.empty()) {
      failure = "out of bounds: " + damage + "; block " + to_string(block);
      const size_t bytes = arena.bytes();
      arena.resize(bytes + 1);
      arena.resize(bytes);
    }
  }
  if (!failure.empty()) {
    const std::string why = std::exchange(failure, {});
    forget_block();
    throw std::runtime_error("sim: " + why);
  }
  if (!objects.empty()) {
    for (auto& [type, object] : objects) object.destroy(object.object);
    objects.clear();
  }
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
    Thread* thread = worker.starting;
    Thread* next;
    for (;;) {
      worker.run_thread(thread);
      next = worker.next_thread();
      if (next == nullptr || next->fiber != nullptr) break;
      thread = next;
    }
    Fiber& self = *worker.fiber;
    worker.free_fibers.push_back(&self);
    worker.fiber = next == nullptr ? &worker.host : next->fiber;
    if (next != nullptr) worker.current = next;
    switch_fiber(self, *worker.fiber);
  }
}

void Worker::run_thread(Thread* thread) {
  current = thread;
  thread->state = ThreadState::kRunning;
  thread->site = {};
  registers.thread_index = thread->index;
  registers.linear_thread = thread->linear;
  try {
    call->invoke(call->kernel, call->arguments.get());
  } catch (const std::exception& error) {
    failure = std::string("the kernel threw an exception: ") + error.what();
  } catch (...) {
    failure = "the kernel threw an exception";
  }
  if (!failure.empty()) stop(failure + "; " + describe_thread(*this, *thread));
  thread_returned(thread);
}

void Worker::thread_returned(Thread* thread) {
  thread->state = ThreadState::kReturned;
  ++returned;
  Warp& warp = warps[thread->linear / kLanes];
  const unsigned bit = 1u << thread->linear % kLanes;
  warp.returned |= bit;
  const Barrier& barrier = barriers[0];
  if (barrier.arrived != 0 && barrier.whole_block) {
    const Thread& waiter = *barrier.waiters.front();
    stop("a thread returned while others of its block wait at " + std::string(waiter.what) + "; " +
         describe_thread(*this, *thread) + " returned, thread " + to_string(waiter.index) +
         " waits at " + to_string(barrier.site));
  }
  if (warp.points_in_use == 0) return;
  for (const WarpPoint& point : warp.points) {
    if (point.mask & bit) {
      stop("a lane of the mask returned while others wait at " + std::string(point.what) + "; " +
           describe_thread(*this, *thread) + " returned, lanes of its warp wait at " +
           to_string(point.site));
    }
  }
}

Thread* Worker::start_next() {
  unsigned i = started++;
  if (schedule.order == Order::kReverse) i = thread_count - 1 - i;
  if (schedule.order == Order::kRandom) i = start_order[i];
  Thread* thread = &threads[i];
  thread->fiber = nullptr;
  return thread;
}

// The thread to go on with; nullptr when all have returned. It is ready if it has a fiber.
Thread* Worker::next_thread() {
  const uint64_t size_mask = ready.size() - 1;
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
}

void Worker::make_ready(Thread* thread) {
  thread->state = ThreadState::kReady;
  ready[ready_tail++ & (ready.size() - 1)] = thread;
}

void Worker::make_ready(std::vector<Thread*>& waiters) {
  const auto in_order = [reverse = schedule.order == Order::kReverse](const Thread* a,
                                                                      const Thread* b) {
    return reverse ? a->linear > b->linear : a->linear < b->linear;
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
    if (thread->predicate(thread->closure)) {
      now.push_back(thread);
      pollers[i] = pollers.back();
      pollers.pop_back();
    } else {
      ++i;
    }
  }
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
