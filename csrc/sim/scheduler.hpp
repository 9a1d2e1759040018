// SPDX-License-Identifier: MIT
// The state of a host thread that runs kernels: the resident blocks (one, a cluster or a
// cooperative grid), their threads, what they wait for, and the fibers that waiting threads sleep
// on. Private to the runtime.
#pragma once

#include <signal.h>

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "async.hpp"
#include "cluster.hpp"
#include "fiber.hpp"
#include "launch.hpp"
#include "schedule.hpp"
#include "shared.hpp"

namespace tilegrad::simulator {

inline constexpr unsigned kMaxThreads = 1024, kLanes = 32, kNamedBarriers = 16;

enum class ThreadState : uint8_t { kRunning, kReady, kWaiting, kReturned };

struct Block;

struct Thread {
  Fiber* fiber = nullptr;  // where it sleeps; nullptr: not started
  uint3 index{};
  unsigned linear = 0;  // in its block
  unsigned number = 0;  // in all resident blocks
  Block* block = nullptr;
  ThreadState state = ThreadState::kReturned;
  unsigned result = 0;         // what the barrier that it waited at has counted
  const char* what = nullptr;  // what it waits for
  Site site;                   // and where: its latest blocking call
  Predicate predicate = nullptr;
  const void* closure = nullptr;
  bool at_cluster_barrier = false;  // has arrived there, and not waited yet
  uint64_t cluster_phase = 0;       // the phase that it arrived in
  bool waited_for_grid = false;     // griddepcontrol.wait
};

// A rendezvous in progress of some lanes of a warp.
struct WarpPoint {
  unsigned mask = 0;  // 0: not in use
  unsigned expected = 0, arrived = 0;
  CollectiveFunction function = nullptr;
  const char* what = nullptr;
  Site site;
  std::array<void*, kLanes> records{};
};
struct Warp {
  unsigned existing = 0, returned = 0;
  unsigned points_in_use = 0;
  std::vector<WarpPoint> points;
};

struct GroupPoint {
  unsigned first = 0, count = 0, arrived = 0;
  GroupFunction function = nullptr;
  const char* what = nullptr;
  Site site;
  std::vector<void*> records;
};

struct Barrier {
  unsigned expected = 0, arrived = 0, votes = 0;
  bool whole_block = false;  // __syncthreads: all must come from one line
  Site site;
  std::vector<Thread*> waiters;
};

// Blocks that may reach each other's shared memory. A phase of its barrier ends when all threads
// that have not returned have arrived.
struct Cluster {
  unsigned arrived = 0;   // in this phase
  unsigned returned = 0;  // and have not arrived in it
  uint64_t phase = 0;
  std::vector<Thread*> waiters;
};

// A resident block.
struct Block {
  uint3 index{};
  unsigned rank = 0;  // among the resident ones
  Cluster* cluster = nullptr;
  unsigned returned = 0;
  std::vector<Warp> warps;
  std::array<Barrier, kNamedBarriers> barriers;
  std::vector<GroupPoint> groups;
  std::vector<std::pair<const std::type_info*, BlockObject>> objects;
  Arena arena;

  void forget();  // after a failure its threads are gone, wherever they were
  void destroy_objects();
};

struct Operation {
  AsyncTag tag;
  Thread* thread = nullptr;  // issuer
  uint64_t group = 0;
  bool fence = false;  // issue_after_previous
  std::function<void()> run;
};
// Operations of one kind and owner, oldest first.
struct OperationQueue {
  uint64_t closed_groups = 0;
  std::deque<Operation> pending;
};

// A memory fault, as the signal handler saw it.
struct MemoryFault {
  uintptr_t address = 0;
  uintptr_t instruction = 0;
  int access = 0;  // 1 read, 2 write, 0 unknown
  bool address_known = true;
};

void fiber_main();  // what every fiber runs

struct Worker {
  Worker();
  ~Worker();

  // The launch.
  const KernelCall* call = nullptr;
  Schedule schedule;
  Random random;
  unsigned block_threads = 0, block_warps = 0;
  unsigned resident = 0;        // blocks at a time, of which `cluster` form a cluster
  unsigned cluster = 1;         // blocks
  dim3 indexed_for{0, 0, 0};    // the block size that threads[].index holds
  unsigned indexed_blocks = 0;  // and how many blocks

  // The resident blocks.
  std::vector<std::unique_ptr<Block>> blocks;  // the first `resident` ones
  std::vector<Cluster> clusters;
  std::vector<Thread> threads;        // block by block
  std::vector<unsigned> start_order;  // used by random schedules
  unsigned started = 0, returned = 0;
  std::vector<Thread*> ready;  // a ring
  uint64_t ready_head = 0, ready_tail = 0;
  std::vector<Thread*> pollers;
  std::unordered_map<uint32_t, OperationQueue> queues;  // by kind and owner
  std::vector<uint32_t> busy_queues;                    // those with pending operations
  unsigned fences = 0;
  StaticShared statics;

  // Fibers.
  Fiber host;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Fiber*> free_fibers;
  Fiber* fiber = nullptr;                // running; nullptr outside a block
  Thread* current = nullptr;             // running
  Thread* polled = nullptr;              // whose condition is being looked at
  Thread* starting = nullptr;            // for the fiber that is switched to
  const Operation* operation = nullptr;  // being run

  // Why the launch failed.
  std::string failure;
  bool memory_fault = false;
  MemoryFault fault;
  std::vector<char> signal_stack;

  void prepare(const KernelCall& kernel_call);
  void run_blocks(uint64_t first);  // and those that are resident with it
  void suspend();                   // the current thread is registered with what it waits for
  void make_ready(Thread* thread);
  void make_ready(std::vector<Thread*>& waiters);  // in the schedule's order; empties it
  [[noreturn]] void stop(std::string why);         // from a fiber: the launch fails

  // For whom the running code acts: the issuer of an operation, or the thread that runs.
  Thread& acting() const {
    return operation != nullptr ? *operation->thread : polled != nullptr ? *polled : *current;
  }
  Block& acting_block() const { return *acting().block; }
  // The resident block in whose dynamic shared memory the address lies, or nullptr.
  Block* block_of(const void* address) const;
  void end_phase(Cluster& of);         // if all have arrived
  void leave_cluster(Thread& thread);  // it has returned

  bool drive_operation();
  void clear_operations();
  void finish_operations();

 private:
  friend void fiber_main();
  Thread* next_thread();
  Thread* start_next();
  Thread* run_threads(Thread* thread);
  void run_thread(Thread* thread);
  void thread_returned(Thread* thread);
  bool poll();
  Fiber* take_fiber();
  void index_threads(dim3 size);
  void begin_blocks(uint64_t first);
  void block_ended(Block& block);
  void check_damage(const Block& block);
  void forget_blocks();
  [[noreturn]] void deadlock();
};

// The i-th block of a grid: x first.
inline uint3 block_at(uint64_t i, dim3 grid) {
  return {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
          static_cast<unsigned>(i / grid.x / grid.y)};
}

// This host thread's; made at the first call.
Worker& this_worker();
// The worker, if a CUDA thread is running on this host thread, else a std::logic_error that says
// what was called outside a kernel.
[[noreturn]] void not_in_kernel(const char* what);
inline Worker& running_worker(const char* what) {
  Worker* worker = registers.worker;
  if (worker == nullptr || worker->current == nullptr) not_in_kernel(what);
  return *worker;
}

// Text for reports.
std::string to_string(uint3 index);
std::string to_string(Site site);
std::string describe_thread(const Thread& thread);
std::string describe_waiting(const Worker& worker);
std::string describe_memory_fault(const Worker& worker);

// For the time of a launch, memory faults of CUDA threads end the launch (fault.cpp).
class FaultGuard {
 public:
  explicit FaultGuard(Worker& worker);
  ~FaultGuard();
  FaultGuard(const FaultGuard&) = delete;
  FaultGuard& operator=(const FaultGuard&) = delete;

 private:
  stack_t old_stack_{};
  bool own_stack_ = false;
};

}  // namespace tilegrad::simulator
