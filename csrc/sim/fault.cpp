// SPDX-License-Identifier: MIT
// SIGSEGV and SIGBUS of a CUDA thread. The handler works on its own stack (the thread's may have
// overflowed), notes what happened and lets the host thread's own stack go on, as if the CUDA
// thread had stopped there. It is there only while kernels run, and leaves other faults to whoever
// was there before.
#include <signal.h>
#include <ucontext.h>

#include <mutex>

#include "scheduler.hpp"

namespace tilegrad::simulator {
namespace {

constexpr int kSignals[] = {SIGSEGV, SIGBUS};

std::mutex mutex;
int users = 0;  // launches in progress
struct sigaction previous[2];

void pass_on(int signal, siginfo_t* info, void* context) {
  const struct sigaction& old = previous[signal == SIGSEGV ? 0 : 1];
  if (old.sa_flags & SA_SIGINFO) {
    old.sa_sigaction(signal, info, context);
  } else if (old.sa_handler == SIG_DFL || old.sa_handler == SIG_IGN) {
    sigaction(signal, &old, nullptr);  // the instruction faults again
  } else {
    old.sa_handler(signal);
  }
}

void handle(int signal, siginfo_t* info, void* context) {
  Worker* worker = registers.worker;
  // A signal that was sent (kill) is not a fault of the running instruction.
  const bool sent = info->si_code == SI_USER || info->si_code == SI_TKILL;
  if (sent || worker == nullptr || worker->fiber == nullptr || worker->current == nullptr) {
    pass_on(signal, info, context);
    return;
  }
  MemoryFault& fault = worker->fault;
  fault = {};
  fault.address = reinterpret_cast<uintptr_t>(info->si_addr);
  fault.address_known = info->si_code != SI_KERNEL;
#if defined(__x86_64__)
  const auto& registers_then = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  fault.instruction = static_cast<uintptr_t>(registers_then[REG_RIP]);
  fault.access = registers_then[REG_ERR] & 2 ? 2 : 1;
#elif defined(__aarch64__)
  fault.instruction = static_cast<ucontext_t*>(context)->uc_mcontext.pc;
#endif
  worker->memory_fault = true;
  resume_after_signal(context, worker->host);
}

}  // namespace

FaultGuard::FaultGuard(Worker& worker) {
  stack_t stack{};
  sigaltstack(nullptr, &old_stack_);
  if (old_stack_.ss_flags & SS_DISABLE || old_stack_.ss_size < worker.signal_stack.size()) {
    stack.ss_sp = worker.signal_stack.data();
    stack.ss_size = worker.signal_stack.size();
    own_stack_ = sigaltstack(&stack, nullptr) == 0;
  }
  const std::lock_guard<std::mutex> lock(mutex);
  if (users++ != 0) return;
  struct sigaction action{};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  for (int i = 0; i < 2; ++i) sigaction(kSignals[i], &action, &previous[i]);
}

FaultGuard::~FaultGuard() {
  {
    const std::lock_guard<std::mutex> lock(mutex);
    if (--users == 0) {
      for (int i = 0; i < 2; ++i) sigaction(kSignals[i], &previous[i], nullptr);
    }
  }
  if (own_stack_) sigaltstack(&old_stack_, nullptr);
}

}  // namespace tilegrad::simulator
