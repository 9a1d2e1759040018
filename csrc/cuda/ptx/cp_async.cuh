// SPDX-License-Identifier: MIT
// cp.async: copies from global to shared memory that a thread starts and later waits for.
//
// A thread sees what its own copies wrote after cp_async_wait; other threads after a barrier that
// follows it. Both addresses are aligned to the size of the copy. sm_75 has no such instruction:
// there a copy is done at once, and commit and wait do nothing.
// Source: PTX ISA, Data Movement and Conversion: cp.async, cp.async.commit_group,
// cp.async.wait_group.
#pragma once

#include <cstring>
#include <type_traits>

#include "site.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// kBytes to shared memory: the first `bytes` of them from global memory, zeros after those.
template <int kBytes>
__device__ inline void cp_async_partial(void* shared, const void* global, int bytes,
                                        [[maybe_unused]] Site site = here()) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
#ifdef TILEGRAD_SIM
  check_shared(shared, kBytes, "cp.async", site);
  if (bytes < 0 || bytes > kBytes) simulator::fail("cp.async: more bytes than the copy", site);
  if (bytes > 0 && reinterpret_cast<uintptr_t>(global) % kBytes != 0) {
    simulator::fail("cp.async: misaligned global memory address", site);
  }
  const simulator::AsyncTag tag{simulator::AsyncKind::kCopy, simulator::current_thread(),
                                "cp.async", site};
  trace_async(tag, nullptr, global, static_cast<size_t>(bytes), false);
  trace_async(tag, nullptr, shared, kBytes, true);
  simulator::issue(tag, [=] {
    char value[kBytes] = {};
    std::memcpy(value, global, static_cast<size_t>(bytes));
    std::memcpy(shared, value, kBytes);
  });
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const uint32_t to = shared_address(shared);
  if constexpr (kBytes == 16) {  // .cg keeps a tile, which is read once, out of L1
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(to), "l"(global), "r"(bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                 :
                 : "r"(to), "l"(global), "n"(kBytes), "r"(bytes)
                 : "memory");
  }
#else
  using Word =
      std::conditional_t<kBytes == 16, uint4, std::conditional_t<kBytes == 8, uint2, uint32_t> >;
  if (bytes == kBytes || bytes == 0) {
    *static_cast<Word*>(shared) = bytes == 0 ? Word{} : *static_cast<const Word*>(global);
  } else {
    for (int i = 0; i < kBytes; ++i) {
      static_cast<char*>(shared)[i] = i < bytes ? static_cast<const char*>(global)[i] : 0;
    }
  }
#endif
}

// kBytes from global to shared memory; zeros, and nothing is read, where not valid.
template <int kBytes>
__device__ inline void cp_async_zfill(void* shared, const void* global, bool valid,
                                      Site site = here()) {
  cp_async_partial<kBytes>(shared, global, valid ? kBytes : 0, site);
}

// kBytes from global to shared memory.
template <int kBytes>
__device__ inline void cp_async(void* shared, const void* global, Site site = here()) {
  cp_async_partial<kBytes>(shared, global, kBytes, site);
}

__device__ inline void cp_async_4(void* shared, const void* global, Site site = here()) {
  cp_async<4>(shared, global, site);
}
__device__ inline void cp_async_8(void* shared, const void* global, Site site = here()) {
  cp_async<8>(shared, global, site);
}
__device__ inline void cp_async_16(void* shared, const void* global, Site site = here()) {
  cp_async<16>(shared, global, site);
}
__device__ inline void cp_async_4_zfill(void* shared, const void* global, bool valid,
                                        Site site = here()) {
  cp_async_zfill<4>(shared, global, valid, site);
}
__device__ inline void cp_async_8_zfill(void* shared, const void* global, bool valid,
                                        Site site = here()) {
  cp_async_zfill<8>(shared, global, valid, site);
}
__device__ inline void cp_async_16_zfill(void* shared, const void* global, bool valid,
                                         Site site = here()) {
  cp_async_zfill<16>(shared, global, valid, site);
}

// Closes a group: the copies of this thread since the last one. A group may be empty.
__device__ inline void cp_async_commit([[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  simulator::commit_group(simulator::AsyncKind::kCopy, simulator::current_thread());
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most the newest kPending groups of this thread are unfinished.
template <int kPending>
__device__ inline void cp_async_wait([[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  simulator::wait_group(simulator::AsyncKind::kCopy, simulator::current_thread(), kPending);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" : : "n"(kPending) : "memory");
#endif
}

}  // namespace tilegrad::TILEGRAD_BACKEND
