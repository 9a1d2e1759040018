// SPDX-License-Identifier: MIT
// Operations that several CUDA threads carry out together, and blocking in general.
//
// A thread that waits is suspended (its stack becomes a fiber) and another one runs. A collective
// runs ONCE, in the thread that arrives last, for all of them: each passes the address of a record
// on its own stack, with its operands in it, and finds its results there afterwards.
//
//   struct Record { float value; int source; float result; };
//   Record mine{value, source, 0};
//   warp_collective(mask, mine, [](Record* const* lane, unsigned mask) {
//     for (int i = 0; i < 32; ++i)
//       if (mask >> i & 1) lane[i]->result = lane[lane[i]->source]->value;
//   }, "__shfl_sync", site);
//
// All lanes must call with one mask, from one line (Site) and with one function; else the launch
// fails with a report, as it does when a lane of the mask has returned or waits elsewhere.
#pragma once

#include <string>
#include <type_traits>

#include "registers.hpp"
#include "trace_hooks.hpp"

namespace tilegrad::simulator {

// Where a kernel calls from; wrappers get it from __builtin_FILE(), __builtin_LINE() defaults.
struct Site {
  const char* file = nullptr;
  int line = 0;
};

// Position of the running CUDA thread in its block: x + y * size.x + z * size.x * size.y.
inline unsigned current_thread() { return registers.linear_thread; }
inline unsigned current_lane() { return current_thread() % 32; }
inline unsigned current_warp() { return current_thread() / 32; }

// Ends the launch with std::runtime_error("sim: what; thread .. of block .., file:line"). For the
// misuse of an instruction (a misaligned address, an operand out of range).
[[noreturn]] void fail(const std::string& what, Site site);

// records[i]: what lane i passed, nullptr for a lane outside the mask. `active` is the mask without
// lanes that the block does not have (its size need not be a multiple of 32).
using CollectiveFunction = void (*)(void* const* records, unsigned active);
TILEGRAD_FOR_KERNELS void warp_collective_erased(unsigned mask, void* record,
                                                 CollectiveFunction function, const char* what,
                                                 Site site);

// function is a lambda without captures: void(Record* const* records, unsigned active).
template <class Record, class Function>
void warp_collective(unsigned mask, Record& record, Function, const char* what, Site site) {
  static_assert(std::is_empty_v<Function>, "a collective's function has no captures");
  warp_collective_erased(
      mask, &record,
      [](void* const* records, unsigned active) {
        Function{}(reinterpret_cast<Record* const*>(records), active);
      },
      what, site);
}

// The same for `count` threads of the block from first_thread on, which is a multiple of count: a
// warpgroup has 128. records[i] is of thread first_thread + i.
using GroupFunction = void (*)(void* const* records, unsigned count);
void group_collective_erased(unsigned first_thread, unsigned count, void* record,
                             GroupFunction function, const char* what, Site site);

template <class Record, class Function>
void group_collective(unsigned first_thread, unsigned count, Record& record, Function,
                      const char* what, Site site) {
  static_assert(std::is_empty_v<Function>, "a collective's function has no captures");
  group_collective_erased(
      first_thread, count, &record,
      [](void* const* records, unsigned n) {
        Function{}(reinterpret_cast<Record* const*>(records), n);
      },
      what, site);
}

// Barrier of all threads of the block. What the threads pass is combined: how many are not 0.
TILEGRAD_FOR_KERNELS unsigned block_barrier(bool vote, const char* what, Site site);

// bar.sync id, count and bar.arrive id, count: id is 0..15, count a multiple of 32. Barrier 0 with
// all threads is __syncthreads's.
void named_barrier_sync(unsigned id, unsigned count, Site site);
void named_barrier_arrive(unsigned id, unsigned count, Site site);

// Suspends the thread until predicate() holds. The predicate is called between other threads'
// steps, so it must not look at threadIdx; what it refers to on this thread's stack stays valid.
using Predicate = bool (*)(const void* closure);
void block_until_erased(Predicate predicate, const void* closure, const char* what, Site site);

template <class P>
void block_until(const P& predicate, Site site, const char* what) {
  {
    const TraceMute mute;
    if (predicate()) return;
  }
  block_until_erased(
      [](const void* closure) -> bool { return (*static_cast<const P*>(closure))(); }, &predicate,
      what, site);
}

template <class P>
void spin_wait(const P& predicate, const char* file = __builtin_FILE(),
               int line = __builtin_LINE()) {
  block_until(predicate, Site{file, line}, "spin_wait");
  predicate();  // as the kernel's own: an atomic load in it acquires what it waited for
}

}  // namespace tilegrad::simulator
