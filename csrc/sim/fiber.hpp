// SPDX-License-Identifier: MIT
// Stacks that CUDA threads wait on, and the switch between them. A fiber never leaves the host
// thread that made it.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#if defined(__x86_64__) && !defined(TILEGRAD_UCONTEXT)
#define TILEGRAD_FIBER_X86
#elif defined(__aarch64__) && !defined(TILEGRAD_UCONTEXT)
#define TILEGRAD_FIBER_ARM
#elif !defined(TILEGRAD_UCONTEXT)
#define TILEGRAD_UCONTEXT  // anywhere else; defined by hand, it can be tested here too
#endif
#ifdef TILEGRAD_UCONTEXT
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#define TILEGRAD_FIBER_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TILEGRAD_FIBER_ASAN
#endif
#endif

namespace tilegrad::simulator {

struct Fiber {
  void* stack_pointer = nullptr;  // where it goes on
  char* mapping = nullptr;  // guard page, then the stack; nullptr: the host thread's own stack
  size_t mapping_bytes = 0;
  size_t colour = 0;
  bool has_guard = false;
#ifdef TILEGRAD_FIBER_ASAN
  void* fake_stack = nullptr;
  const void* bottom = nullptr;
  size_t size = 0;
#endif
#ifdef TILEGRAD_UCONTEXT
  ucontext_t context;
#endif
  ~Fiber();
};

inline constexpr size_t kGuardBytes = 4096 * 4;  // below each stack; whole pages up to 16 KB

// A new fiber, ready to run entry() when it is first switched to. entry never returns.
std::unique_ptr<Fiber> make_fiber(size_t number);
// `host` stands for the stack that this host thread came with.
void describe_host_stack(Fiber& host);
// Forgets what the fiber was doing.
void reset_fiber(Fiber& fiber, void (*entry)());

// Suspends `from`, which is running, and goes on with `to`.
void switch_fiber(Fiber& from, Fiber& to);
// The same, but `from` will never go on. Does not return.
[[noreturn]] void abandon_fiber(Fiber& to);
// To be called first in entry().
void fiber_entered();

// Changes the interrupted context of a signal so that `to` goes on when the handler returns.
void resume_after_signal(void* ucontext, Fiber& to);

}  // namespace tilegrad::simulator
