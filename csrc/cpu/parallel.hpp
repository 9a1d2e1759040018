// SPDX-License-Identifier: MIT
// The thread pool. Threads take tasks one by one, each from its own share first and then from those
// of others, so a slow core takes fewer; which thread runs a task must never change a result. The
// calling thread takes tasks too.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "../context.hpp"

namespace tilegrad::cpu {

constexpr int kMaxThreads = 1024;

// TILEGRAD_NUM_THREADS, else OMP_NUM_THREADS, else the processors this process may run on.
int num_threads();
void set_num_threads(int count);

// Threads that a call of this context uses at most: scratch memory per thread is sized by it, so
// bindings fix it (Context::max_threads) for the length of a call.
int thread_limit(const Context& context);

using TaskFunction = void (*)(void* closure, int64_t task, int thread);

// Runs the function for every task in [0, count) on up to max_threads threads. If the pool is busy
// with another caller's work, or this is a pool thread itself, it runs here, one after another.
void run_tasks(int max_threads, int64_t count, TaskFunction function, void* closure);

// Jobs that the pool has run so far, each of which ends in a join, and their tasks: what benchmarks
// count.
std::pair<int64_t, int64_t> jobs_and_tasks();

// Below this much estimated serial work a join costs more than it saves.
constexpr double kSerialNanoseconds = 5000;

// f(task, thread) for task in [0, count), thread in [0, thread_limit). `nanoseconds` estimates the
// serial time of all tasks together. f must not throw.
template <class F>
void parallel_for(const Context& context, int64_t count, double nanoseconds, F&& f) {
  const int limit = thread_limit(context);
  if (count <= 1 || limit <= 1 || nanoseconds < kSerialNanoseconds) {
    for (int64_t task = 0; task < count; ++task) f(task, 0);
    return;
  }
  using Closure = std::remove_reference_t<F>;
  run_tasks(
      limit, count,
      [](void* closure, int64_t task, int thread) {
        (*static_cast<Closure*>(closure))(task, thread);
      },
      const_cast<std::remove_const_t<Closure>*>(&f));
}

// The same over contiguous ranges of at most `grain` elements: f(begin, end, thread).
template <class F>
void parallel_ranges(const Context& context, int64_t n, int64_t grain, double nanoseconds, F&& f) {
  parallel_for(context, (n + grain - 1) / grain, nanoseconds, [&](int64_t task, int thread) {
    const int64_t begin = task * grain;
    f(begin, begin + grain < n ? begin + grain : n, thread);
  });
}

}  // namespace tilegrad::cpu
