// SPDX-License-Identifier: MIT
#include "fiber.hpp"

#include <pthread.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#ifdef TILEGRAD_FIBER_ASAN
extern "C" {
void __sanitizer_start_switch_fiber(void** fake_stack_save, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom_old, size_t* size_old);
void __asan_unpoison_memory_region(const volatile void* start, size_t size);
}
#endif

// tilegrad_sim_switch(void** from, void* to): pushes what a function must preserve, stores the
// stack pointer in *from, takes `to` for it and pops. tilegrad_sim_resume is its second half.
#if defined(TILEGRAD_FIBER_X86)
asm(R"(
.text
.p2align 4
.globl tilegrad_sim_switch
.hidden tilegrad_sim_switch
.type tilegrad_sim_switch, @function
tilegrad_sim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
.globl tilegrad_sim_resume
.hidden tilegrad_sim_resume
tilegrad_sim_resume:
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size tilegrad_sim_switch, .-tilegrad_sim_switch
)");
#elif defined(TILEGRAD_FIBER_ARM)
asm(R"(
.text
.p2align 4
.globl tilegrad_sim_switch
.hidden tilegrad_sim_switch
.type tilegrad_sim_switch, %function
tilegrad_sim_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
.globl tilegrad_sim_resume
.hidden tilegrad_sim_resume
tilegrad_sim_resume:
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size tilegrad_sim_switch, .-tilegrad_sim_switch
)");
#endif
#ifndef TILEGRAD_UCONTEXT
extern "C" {
void tilegrad_sim_switch(void** from, void* to);
void tilegrad_sim_resume();
}
#endif

namespace tilegrad::simulator {
namespace {

#ifdef TILEGRAD_FIBER_ASAN
constexpr size_t kStackBytes = 512 * 1024;
#else
constexpr size_t kStackBytes = 128 * 1024;
#endif

// Fibers stop at about the same depth. Stacks that began at equal offsets in their pages would
// compete for the same few sets of the caches.
constexpr size_t kColours = 32, kColourBytes = 5 * 64;

// A guard page splits the process's memory in two more ranges, of which the system has 65530. The
// stacks beyond so many have none and lie side by side as one range.
constexpr int kMostGuarded = 12000;
std::atomic<int> guarded{0};

}  // namespace

Fiber::~Fiber() {
  if (mapping != nullptr) munmap(mapping, mapping_bytes);
  if (has_guard) --guarded;
}

std::unique_ptr<Fiber> make_fiber(size_t number) {
  auto fiber = std::make_unique<Fiber>();
  fiber->mapping_bytes = kGuardBytes + kStackBytes;
  void* p = mmap(nullptr, fiber->mapping_bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  fiber->mapping = static_cast<char*>(p);
  if (guarded++ < kMostGuarded) {
    fiber->has_guard = mprotect(fiber->mapping, kGuardBytes, PROT_NONE) == 0;
  }
  if (!fiber->has_guard) --guarded;
  fiber->colour = number % kColours * kColourBytes;
  return fiber;
}

void describe_host_stack([[maybe_unused]] Fiber& host) {
#ifdef TILEGRAD_FIBER_ASAN
  pthread_attr_t attributes;
  void* bottom = nullptr;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &bottom, &host.size);
  pthread_attr_destroy(&attributes);
  host.bottom = bottom;
#endif
}

void reset_fiber(Fiber& fiber, void (*entry)()) {
  char* top = fiber.mapping + fiber.mapping_bytes - fiber.colour;
#ifdef TILEGRAD_FIBER_ASAN
  fiber.fake_stack = nullptr;
  fiber.bottom = fiber.mapping + kGuardBytes;
  fiber.size = kStackBytes;
  // A fault left frames behind that nobody returned from.
  __asan_unpoison_memory_region(fiber.bottom, fiber.size);
#endif
#if defined(TILEGRAD_FIBER_X86)
  // Six registers, the address that `ret` goes to, and the (null) return address of entry.
  auto* frame = reinterpret_cast<uintptr_t*>(top) - 8;
  std::memset(frame, 0, 8 * sizeof(uintptr_t));
  frame[6] = reinterpret_cast<uintptr_t>(entry);
  fiber.stack_pointer = frame;
#elif defined(TILEGRAD_FIBER_ARM)
  auto* frame = reinterpret_cast<uintptr_t*>(top - 160);
  std::memset(frame, 0, 160);
  frame[11] = reinterpret_cast<uintptr_t>(entry);  // x30
  fiber.stack_pointer = frame;
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.mapping + kGuardBytes;
  fiber.context.uc_stack.ss_size = static_cast<size_t>(top - fiber.mapping) - kGuardBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
#endif
}

void switch_fiber(Fiber& from, Fiber& to) {
#ifdef TILEGRAD_FIBER_ASAN
  __sanitizer_start_switch_fiber(&from.fake_stack, to.bottom, to.size);
#endif
#ifdef TILEGRAD_UCONTEXT
  swapcontext(&from.context, &to.context);
#else
  tilegrad_sim_switch(&from.stack_pointer, to.stack_pointer);
#endif
#ifdef TILEGRAD_FIBER_ASAN
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

void abandon_fiber(Fiber& to) {
#ifdef TILEGRAD_FIBER_ASAN
  __sanitizer_start_switch_fiber(nullptr, to.bottom, to.size);
#endif
#ifdef TILEGRAD_UCONTEXT
  setcontext(&to.context);
#else
  void* unused;
  tilegrad_sim_switch(&unused, to.stack_pointer);
#endif
  std::abort();  // not reached
}

void fiber_entered() {
#ifdef TILEGRAD_FIBER_ASAN
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

void resume_after_signal(void* ucontext, Fiber& to) {
  [[maybe_unused]] auto* context = static_cast<ucontext_t*>(ucontext);
#ifdef TILEGRAD_FIBER_ASAN
  __sanitizer_start_switch_fiber(nullptr, to.bottom, to.size);
#endif
#if defined(TILEGRAD_FIBER_X86)
  context->uc_mcontext.gregs[REG_RSP] =
      static_cast<greg_t>(reinterpret_cast<uintptr_t>(to.stack_pointer));
  context->uc_mcontext.gregs[REG_RIP] =
      static_cast<greg_t>(reinterpret_cast<uintptr_t>(&tilegrad_sim_resume));
#elif defined(TILEGRAD_FIBER_ARM)
  context->uc_mcontext.sp = reinterpret_cast<uintptr_t>(to.stack_pointer);
  context->uc_mcontext.pc = reinterpret_cast<uintptr_t>(&tilegrad_sim_resume);
#else
  setcontext(&to.context);
#endif
}

}  // namespace tilegrad::simulator
