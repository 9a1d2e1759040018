// SPDX-License-Identifier: MIT
// One job at a time. `gate_` holds (job number, open bit, threads inside): a worker enters an open
// job by raising the count, the caller closes the job and waits for the count to reach zero. A
// worker that is still asleep by then has missed the job and nobody waits for it.
// A ticket entitles to one task. A thread takes those of its own share of the tasks first, so that
// what it works on again and again stays in its core's caches, then those that others left.
#include "parallel.hpp"

#ifdef __linux__
#include <sched.h>
#endif
#ifndef _WIN32
#include <pthread.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

#include "isa.hpp"

namespace tilegrad::cpu {
namespace {

constexpr uint64_t kOpen = uint64_t{1} << 31;
constexpr uint64_t kInside = kOpen - 1;
constexpr uint64_t kJob = uint64_t{1} << 32;
constexpr uint64_t kMostShared = uint64_t{1} << 24;  // tasks of a job; more are taken in order
constexpr uint64_t kJobs = uint64_t{1} << 40;        // before they are counted from zero again
constexpr auto kSpin = std::chrono::microseconds(50);

inline void pause() {
#ifdef TILEGRAD_X86
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

#ifdef __linux__
// What the process was given when this library was loaded.
struct Processors {
  cpu_set_t set;
  bool bound_by_openmp = false;  // a runtime is told to bind threads

  Processors() {
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) != 0) CPU_SET(0, &set);
    for (const char* name : {"GOMP_CPU_AFFINITY", "OMP_PROC_BIND", "OMP_PLACES", "KMP_AFFINITY"}) {
      bound_by_openmp = bound_by_openmp || std::getenv(name) != nullptr;
    }
  }
};

const Processors& processors() {
  static const Processors given;
  return given;
}

// An OpenMP runtime that binds threads binds the one that loads it to one processor, and a thread
// started from there inherits that one. A worker then gets back those of the process.
void undo_inherited_binding(std::thread& worker) {
  if (!processors().bound_by_openmp) return;
  pthread_setaffinity_np(worker.native_handle(), sizeof(cpu_set_t), &processors().set);
}

int processor_count() { return CPU_COUNT(&processors().set); }
#else
void undo_inherited_binding(std::thread&) {}

int processor_count() { return static_cast<int>(std::thread::hardware_concurrency()); }
#endif

// A task that asks for the pool again runs its own tasks itself.
thread_local bool inside_task = false;

class Pool {
 public:
  // False if another caller holds the pool.
  bool run(int threads, int64_t count, TaskFunction function, void* closure) {
    std::unique_lock lock(owner_, std::try_to_lock);
    if (!lock) return false;
    while (started_ < threads - 1 && start_worker()) continue;
    function_ = function;
    closure_ = closure;
    count_ = count;
    threads_ = threads;
    job_ = (job_ + 1) % kJobs;
    tasks_.store(tasks_.load(std::memory_order_relaxed) + count, std::memory_order_relaxed);
    tickets_.store(0, std::memory_order_relaxed);
    gate_.fetch_add(kOpen + kJob, std::memory_order_seq_cst);
    if (sleeping_.load(std::memory_order_seq_cst) > 0) wake();
    inside_task = true;
    work(0);
    inside_task = false;
    gate_.fetch_and(~kOpen, std::memory_order_acq_rel);
    for (int spins = 0; (gate_.load(std::memory_order_acquire) & kInside) != 0; ++spins) {
      if (spins < 10000) {
        pause();
      } else {
        std::this_thread::yield();
      }
    }
    return true;
  }

  std::pair<int64_t, int64_t> jobs_and_tasks() const {
    return {static_cast<int64_t>(gate_.load() / kJob), tasks_.load()};
  }

 private:
  // False where the system has no thread left to give; the job then runs with those there are.
  bool start_worker() {
    try {
      std::thread worker([this, thread = started_ + 1] { loop(thread); });
      undo_inherited_binding(worker);
      worker.detach();
    } catch (const std::system_error&) {
      return false;
    }
    ++started_;
    return true;
  }

  void work(int thread) {
    const bool shared = count_ < static_cast<int64_t>(kMostShared);
    int owner = thread;
    for (int64_t ticket; (ticket = tickets_.fetch_add(1, std::memory_order_relaxed)) < count_;) {
      function_(closure_, shared ? take(owner) : ticket, thread);
    }
  }

  int64_t share(int thread) const { return count_ * thread / threads_; }

  // The next task of an owner's share, or of the next owner that has one left. A share that was
  // used up stays so until the job ends, and there are as many tasks as tickets: one is found.
  int64_t take(int& owner) {
    for (;; owner = owner + 1 == threads_ ? 0 : owner + 1) {
      const int64_t begin = share(owner);
      const uint64_t size = static_cast<uint64_t>(share(owner + 1) - begin);
      std::atomic<uint64_t>& taken = shares_[owner].taken;
      uint64_t seen = taken.load(std::memory_order_relaxed);
      for (;;) {
        // What another job left there counts as nothing.
        const uint64_t index = seen / kMostShared == job_ ? seen % kMostShared : 0;
        if (index == size) break;
        if (taken.compare_exchange_weak(seen, job_ * kMostShared + index + 1,
                                        std::memory_order_relaxed)) {
          return begin + static_cast<int64_t>(index);
        }
      }
    }
  }

  [[noreturn]] void loop(int thread) {
    inside_task = true;
    uint64_t seen = 0;
    for (;;) {
      uint64_t gate = wait_for_job(seen);
      seen = gate / kJob;
      // Enter while the job is open; threads_ may be read only from inside.
      bool inside = false;
      while ((gate & kOpen) != 0 && gate / kJob == seen && !inside) {
        inside = gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel);
      }
      if (!inside) continue;
      if (thread < threads_) work(thread);
      gate_.fetch_sub(1, std::memory_order_acq_rel);
    }
  }

  uint64_t wait_for_job(uint64_t seen) {
    const auto deadline = std::chrono::steady_clock::now() + kSpin;
    for (;;) {
      for (int i = 0; i < 64; ++i) {
        const uint64_t gate = gate_.load(std::memory_order_acquire);
        if (gate / kJob != seen) return gate;
        pause();
      }
      if (std::chrono::steady_clock::now() > deadline) break;
    }
    // The caller raises the job number before it looks at sleeping_, this thread does the reverse:
    // one of the two sees the other.
    const uint32_t ticket = wakes_.load(std::memory_order_seq_cst);
    sleeping_.fetch_add(1, std::memory_order_seq_cst);
    uint64_t gate = gate_.load(std::memory_order_seq_cst);
    if (gate / kJob == seen) {
      wakes_.wait(ticket);
      gate = gate_.load(std::memory_order_acquire);
    }
    sleeping_.fetch_sub(1, std::memory_order_seq_cst);
    return gate;
  }

  void wake() {
    wakes_.fetch_add(1, std::memory_order_seq_cst);
    wakes_.notify_all();
  }

  std::mutex owner_;
  int started_ = 0;
  TaskFunction function_ = nullptr;
  void* closure_ = nullptr;
  int64_t count_ = 0;
  int threads_ = 0;
  std::atomic<int64_t> tasks_{0};  // of all jobs; written by who holds owner_
  // Of a job's tasks, those that were taken from the share of each thread: job_ * kMostShared +
  // count.
  struct alignas(64) Share {
    std::atomic<uint64_t> taken{0};
  };
  uint64_t job_ = 0;
  Share shares_[kMaxThreads];
  alignas(64) std::atomic<int64_t> tickets_{0};
  alignas(64) std::atomic<uint64_t> gate_{0};
  alignas(64) std::atomic<int> sleeping_{0};
  std::atomic<uint32_t> wakes_{0};
};

// Never destroyed: its threads sleep until the process ends. A forked child has none of them and
// starts with a new pool; the old one's memory may be mid-change and is left alone.
std::atomic<Pool*> the_pool{nullptr};

Pool& pool() {
  Pool* current = the_pool.load(std::memory_order_acquire);
  if (current != nullptr) return *current;
#ifndef _WIN32
  static const bool registered = [] {
    pthread_atfork(nullptr, nullptr, [] {
      the_pool.store(nullptr, std::memory_order_release);
      inside_task = false;
    });
    return true;
  }();
  static_cast<void>(registered);
#endif
  Pool* fresh = new Pool;
  if (the_pool.compare_exchange_strong(current, fresh)) return *fresh;
  delete fresh;
  return *current;
}

// A whole number in [1, kMaxThreads], else 0.
int parse_count(const char* text) {
  if (text == nullptr || *text == '\0') return 0;
  char* end = nullptr;
  const long count = std::strtol(text, &end, 10);
  return *end == '\0' && count >= 1 && count <= kMaxThreads ? static_cast<int>(count) : 0;
}

int threads_from_environment() {
  const int given = processor_count();
  const char* own = std::getenv("TILEGRAD_NUM_THREADS");
  if (own != nullptr && *own != '\0') {
    const int count = parse_count(own);
    if (count == 0) {
      throw std::invalid_argument("TILEGRAD_NUM_THREADS: must be a whole number in [1, " +
                                  std::to_string(kMaxThreads) + "]; got '" + own + "'");
    }
    return count;
  }
  // Other programs' variable: what cannot be read there is none of our business.
  if (const int count = parse_count(std::getenv("OMP_NUM_THREADS")); count > 0) return count;
  return given < 1 ? 1 : given < kMaxThreads ? given : kMaxThreads;
}

std::atomic<int>& thread_count() {
  static std::atomic<int> count = threads_from_environment();
  return count;
}

}  // namespace

int num_threads() { return thread_count().load(std::memory_order_relaxed); }

void set_num_threads(int count) { thread_count().store(count); }

int thread_limit(const Context& context) {
  return context.max_threads > 0 ? context.max_threads : num_threads();
}

std::pair<int64_t, int64_t> jobs_and_tasks() { return pool().jobs_and_tasks(); }

void run_tasks(int max_threads, int64_t count, TaskFunction function, void* closure) {
  const int threads = static_cast<int>(std::min<int64_t>({count, max_threads, kMaxThreads}));
  if (threads > 1 && !inside_task && pool().run(threads, count, function, closure)) return;
  for (int64_t task = 0; task < count; ++task) function(closure, task, 0);
}

}  // namespace tilegrad::cpu
