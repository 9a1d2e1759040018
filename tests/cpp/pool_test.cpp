// SPDX-License-Identifier: MIT
// Stress of the thread pool, to be run under ThreadSanitizer (tests/run_sanitized.py).
#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

#include "../../csrc/cpu/parallel.hpp"

namespace cpu = tilegrad::cpu;

namespace {

constexpr double kLong = 1e9;  // estimated nanoseconds: always worth a join
int failures = 0;

void expect(bool ok, const char* what) {
  if (ok) return;
  std::printf("failed: %s\n", what);
  ++failures;
}

// Every task runs exactly once, and what it wrote is visible to the caller without any atomic.
bool runs_each_task_once(int64_t count) {
  cpu::Context context;
  std::vector<int> hits(static_cast<size_t>(count), 0);
  cpu::parallel_for(context, count, kLong,
                    [&](int64_t task, int) { ++hits[static_cast<size_t>(task)]; });
  for (int hit : hits) {
    if (hit != 1) return false;
  }
  return true;
}

void test_counts() {
  for (int threads = 1; threads <= 5; ++threads) {
    cpu::set_num_threads(threads);
    for (int64_t count : {0, 1, 2, 3, 7, 64, 1000}) {
      for (int repeat = 0; repeat < 50; ++repeat) expect(runs_each_task_once(count), "counts");
    }
  }
}

void test_thread_index_is_below_the_limit() {
  cpu::set_num_threads(4);
  cpu::Context context;
  context.max_threads = 3;
  std::atomic<bool> ok = true;
  cpu::parallel_for(context, 1000, kLong, [&](int64_t, int thread) {
    if (thread < 0 || thread >= cpu::thread_limit(context)) ok = false;
  });
  expect(ok && cpu::thread_limit(context) == 3, "thread index");
}

void test_nested_calls_run_in_place() {
  cpu::set_num_threads(3);
  std::atomic<int> inner = 0;
  cpu::Context context;
  cpu::parallel_for(context, 20, kLong, [&](int64_t, int) {
    cpu::parallel_for(context, 10, kLong, [&](int64_t, int) { ++inner; });
  });
  expect(inner == 200, "nested");
}

void test_many_callers_at_once() {
  cpu::set_num_threads(2);
  std::vector<std::thread> callers;
  std::atomic<int> bad = 0;
  for (int i = 0; i < 64; ++i) {
    callers.emplace_back([&, i] {
      for (int repeat = 0; repeat < 25; ++repeat) {
        if (!runs_each_task_once(1 + (i * 37 + repeat) % 90)) ++bad;
      }
    });
  }
  std::thread changer([] {
    for (int i = 0; i < 200; ++i) cpu::set_num_threads(1 + i % 4);
  });
  for (std::thread& caller : callers) caller.join();
  changer.join();
  expect(bad == 0, "many callers");
}

// Longer than the workers spin: they are asleep and must be woken.
void test_wakes_after_sleep() {
  cpu::set_num_threads(3);
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    expect(runs_each_task_once(100), "wake");
  }
}

// The tasks of a thread that is held up are taken by others, whichever thread that is.
void test_shares_of_a_late_thread() {
  cpu::set_num_threads(4);
  for (int late = 0; late < 4; ++late) {
    std::atomic<int> left = 400;
    std::atomic<bool> alone = true;
    cpu::Context context;
    cpu::parallel_for(context, 400, kLong, [&](int64_t task, int) {
      --left;
      if (task != late * 100) return;
      for (int i = 0; i < 2000 && left > 0; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      alone = left == 0;
    });
    expect(alone, "a late thread's share waits for it");
  }
}

void test_more_threads_than_the_pool_has() {
  cpu::Context context;
  context.max_threads = cpu::kMaxThreads + 500;
  std::atomic<int> runs = 0;
  cpu::parallel_for(context, 40, kLong, [&](int64_t, int) { ++runs; });
  expect(runs == 40, "more threads than tasks");
}

// Beyond 2^24 tasks there are no shares.
void test_many_tasks() {
  cpu::set_num_threads(2);
  constexpr int64_t kCount = (int64_t{1} << 24) + 3;
  std::vector<unsigned char> hits(kCount, 0);
  cpu::Context context;
  cpu::parallel_for(context, kCount, kLong,
                    [&](int64_t task, int) { ++hits[static_cast<size_t>(task)]; });
  bool once = true;
  for (unsigned char hit : hits) once = once && hit == 1;
  expect(once, "many tasks");
}

}  // namespace

int main() {
  test_counts();
  test_thread_index_is_below_the_limit();
  test_nested_calls_run_in_place();
  test_many_callers_at_once();
  test_wakes_after_sleep();
  test_shares_of_a_late_thread();
  test_more_threads_than_the_pool_has();
  test_many_tasks();
  std::printf(failures == 0 ? "pool: all tests passed\n" : "pool: FAILED\n");
  return failures == 0 ? 0 : 1;
}
