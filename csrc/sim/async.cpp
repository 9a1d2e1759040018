// SPDX-License-Identifier: MIT
// Queues of asynchronous operations, and who runs them when.
#include "async.hpp"

#include <algorithm>
#include <utility>

#include "scheduler.hpp"

namespace tilegrad::simulator {
namespace {

// The owner is a thread of the running block. Operations that signal an mbarrier have no groups:
// one queue holds them all.
uint32_t queue_key(const Worker& worker, AsyncKind kind, unsigned owner) {
  const unsigned number = worker.acting_block().rank * worker.block_threads + owner;
  return static_cast<uint32_t>(kind) << 24 | (kind == AsyncKind::kSignal ? 0 : number);
}
AsyncKind kind_of(uint32_t key) { return static_cast<AsyncKind>(key >> 24); }

void push(Worker& worker, Operation operation) {
  const uint32_t key = queue_key(worker, operation.tag.kind, operation.tag.owner);
  OperationQueue& queue = worker.queues[key];
  operation.thread = worker.current;
  operation.group = queue.closed_groups;
  worker.fences += operation.fence;
  if (queue.pending.empty()) worker.busy_queues.push_back(key);
  queue.pending.push_back(std::move(operation));
}

// Takes operation i out of its queue and runs it.
void run_operation(Worker& worker, uint32_t key, size_t i) {
  OperationQueue& queue = worker.queues[key];
  Operation operation = std::move(queue.pending[i]);
  queue.pending.erase(queue.pending.begin() + static_cast<std::ptrdiff_t>(i));
  if (queue.pending.empty()) {
    worker.busy_queues.erase(std::find(worker.busy_queues.begin(), worker.busy_queues.end(), key));
  }
  worker.fences -= operation.fence;
  const Operation* outer = std::exchange(worker.operation, &operation);
  const TraceMute mute;
  operation.run();
  worker.operation = outer;
}

}  // namespace

bool runs_at_once() {
  return running_worker("an asynchronous operation").schedule.moment == AsyncMoment::kEager;
}

void enqueue_operation(const AsyncTag& tag, std::function<void()> run) {
  push(running_worker(tag.what), {tag, nullptr, 0, false, std::move(run)});
}

void issue_after_previous(const AsyncTag& tag, std::function<void()> run) {
  if (runs_at_once()) {
    const TraceMute mute;
    run();
  } else {
    push(running_worker(tag.what), {tag, nullptr, 0, true, std::move(run)});
  }
}

void commit_group(AsyncKind kind, unsigned owner) {
  if (tracer() != nullptr) tracer()->commit_group(kind, owner);
  Worker& worker = running_worker("commit_group");
  ++worker.queues[queue_key(worker, kind, owner)].closed_groups;
}

void wait_group(AsyncKind kind, unsigned owner, unsigned allowed) {
  Worker& worker = running_worker("wait_group");
  if (tracer() != nullptr) tracer()->wait_group(kind, owner, allowed);
  const uint32_t key = queue_key(worker, kind, owner);
  const auto at = worker.queues.find(key);
  if (at == worker.queues.end() || at->second.closed_groups < allowed) return;
  OperationQueue& queue = at->second;
  const uint64_t finished = queue.closed_groups - allowed;
  while (!queue.pending.empty() && queue.pending.front().group < finished) {
    run_operation(worker, key, 0);
  }
}

// One step of the engines. In a random schedule any operation whose turn may have come; else, when
// no thread can go on, what may let one: the oldest signal, or what an arrival waits for.
bool Worker::drive_operation() {
  if (busy_queues.empty()) return false;
  if (schedule.moment == AsyncMoment::kRandom) {
    const uint32_t key = busy_queues[random.below(busy_queues.size())];
    const size_t count = queues[key].pending.size();
    run_operation(*this, key, kind_of(key) == AsyncKind::kSignal ? random.below(count) : 0);
    return true;
  }
  const uint32_t signals = queue_key(*this, AsyncKind::kSignal, 0);
  for (const uint32_t key : busy_queues) {
    if (key == signals) {
      run_operation(*this, key, 0);
      return true;
    }
  }
  if (fences == 0) return false;
  for (const uint32_t key : busy_queues) {
    const auto& pending = queues[key].pending;
    if (std::any_of(pending.begin(), pending.end(), [](const auto& each) { return each.fence; })) {
      run_operation(*this, key, 0);
      return true;
    }
  }
  return false;
}

// All threads have returned. A cp.async or wgmma that nobody waited for is lost to the kernel; a
// bulk copy would write to, or read from, shared memory that another block may have by now.
void Worker::finish_operations() {
  if (!busy_queues.empty()) {
    for (const uint32_t key : busy_queues) {
      if (kind_of(key) != AsyncKind::kSignal && kind_of(key) != AsyncKind::kBulk) continue;
      const Operation& late = queues[key].pending.front();
      Thread& thread = *late.thread;
      thread.site = late.tag.site;
      stop("the block ended before " + std::string(late.tag.what) + " was complete; issued by " +
           describe_thread(thread));
    }
  }
  if (!queues.empty()) clear_operations();
}

void Worker::clear_operations() {
  queues.clear();
  busy_queues.clear();
  fences = 0;
  operation = nullptr;
}

BlockObject& block_object(const std::type_info& type) {
  Worker& worker = running_worker("block_local");
  auto& objects = worker.acting_block().objects;
  for (auto& [known, object] : objects) {
    if (*known == type) return object;
  }
  objects.emplace_back(&type, BlockObject{});
  return objects.back().second;
}

}  // namespace tilegrad::simulator
