// SPDX-License-Identifier: MIT
// mbarrier: a barrier in shared memory (8 bytes, aligned) that counts arrivals of threads and bytes
// of asynchronous copies. A phase ends when both counts are complete; the next begins at once.
// Phases are told apart by their parity: 0, 1, 0, .. A wait on parity p returns when the phase of
// that parity has ended; so on a fresh barrier a wait on parity 1 returns at once.
// Source: PTX ISA, Parallel Synchronization and Communication: mbarrier.
#pragma once

#include "../spin_wait.cuh"
#include "site.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// A phase ends after `count` arrivals. One thread calls; fence_mbarrier_init and a barrier of the
// block follow before any use.
__device__ inline void mbarrier_init(uint64_t* barrier, int count,
                                     [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  simulator::mbarrier_init(barrier, static_cast<unsigned>(count), site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
               :
               : "r"(shared_address(barrier)), "r"(count)
               : "memory");
#else
  __trap();
#endif
}

// One arrival; what this thread wrote before is visible to those that wait (release).
__device__ inline void mbarrier_arrive(uint64_t* barrier, [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  simulator::mbarrier_arrive(barrier, 1, site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "{\n"
      ".reg .b64 state;\n"
      "mbarrier.arrive.shared::cta.b64 state, [%0];\n"
      "}"
      :
      : "r"(shared_address(barrier))
      : "memory");
#else
  __trap();
#endif
}

// One arrival, and the phase also waits for `bytes` of asynchronous copies.
__device__ inline void mbarrier_arrive_expect_tx(uint64_t* barrier, uint32_t bytes,
                                                 [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  simulator::mbarrier_arrive_expect_tx(barrier, bytes, site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
               :
               : "r"(shared_address(barrier)), "r"(bytes)
               : "memory");
#else
  __trap();
#endif
}

// Whose writes before their arrival a wait makes visible (acquire).
enum class WaitScope { block, cluster };

// Whether the phase of this parity has ended; it may wait a while first.
template <WaitScope kScope = WaitScope::block>
__device__ inline bool mbarrier_try_wait(uint64_t* barrier, uint32_t parity,
                                         [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  return simulator::mbarrier_test_parity(barrier, parity, site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  uint32_t done;
#define TILEGRAD_TRY_WAIT(acquire)                \
  asm volatile(                                   \
      "{\n"                                       \
      ".reg .pred p;\n"                           \
      "mbarrier.try_wait.parity" acquire          \
      ".shared::cta.b64 p, [%1], %2;\n"           \
      "selp.u32 %0, 1, 0, p;\n"                   \
      "}"                                         \
      : "=r"(done)                                \
      : "r"(shared_address(barrier)), "r"(parity) \
      : "memory")
  if constexpr (kScope == WaitScope::block) {
    TILEGRAD_TRY_WAIT("");
  } else {
    TILEGRAD_TRY_WAIT(".acquire.cluster");
  }
#undef TILEGRAD_TRY_WAIT
  return done != 0;
#else
  __trap();
  return true;
#endif
}

// Waits until the phase of this parity has ended.
template <WaitScope kScope = WaitScope::block>
__device__ inline void mbarrier_wait(uint64_t* barrier, uint32_t parity,
                                     [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  simulator::mbarrier_wait_parity(barrier, parity, site);
#else
  spin_wait([&] { return mbarrier_try_wait<kScope>(barrier, parity); });
#endif
}

}  // namespace tilegrad::TILEGRAD_BACKEND
