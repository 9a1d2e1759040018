// SPDX-License-Identifier: MIT
// cp.async.bulk.tensor: the copy engine (TMA) moves a box of a tensor between global and shared
// memory. One thread issues it. x, y, z say where the box begins, innermost first, in elements;
// they may lie outside: what is outside reads as 0 and is not written.
//
// A load counts the bytes of the whole box on an mbarrier, which the thread has told to expect
// them. A store reads what was written before fence_proxy_async; it belongs to bulk groups of the
// issuing thread. Shared addresses are multiples of 1024 (the 128-byte swizzle's period).
// Source: PTX ISA, Data Movement and Conversion: cp.async.bulk.tensor, cp.async.bulk.commit_group,
// cp.async.bulk.wait_group, prefetch.tensormap.
#pragma once

#include "site.cuh"
#include "tensor_map.cuh"
#ifdef TILEGRAD_SIM
#include "tma_sim.hpp"
#endif

namespace tilegrad::TILEGRAD_BACKEND {

// Loads a box of a 2-dimensional tensor.
__device__ inline void tma_load_2d(void* shared, const TensorMap& map, int x, int y,
                                   uint64_t* barrier, [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  detail::tma_load(2, shared, map, {x, y, 0}, barrier, site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%3, %4}], [%2];"
      :
      : "r"(shared_address(shared)), "l"(&map), "r"(shared_address(barrier)), "r"(x), "r"(y)
      : "memory");
#else
  __trap();
#endif
}

// Loads a box of a 3-dimensional tensor.
__device__ inline void tma_load_3d(void* shared, const TensorMap& map, int x, int y, int z,
                                   uint64_t* barrier, [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  detail::tma_load(3, shared, map, {x, y, z}, barrier, site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%3, %4, %5}], [%2];"
      :
      : "r"(shared_address(shared)), "l"(&map), "r"(shared_address(barrier)), "r"(x), "r"(y), "r"(z)
      : "memory");
#else
  __trap();
#endif
}

// Loads a box once for several blocks of the cluster: it arrives in the same place of each block
// whose bit of `mask` is set, and is counted on the mbarrier in the same place of each.
__device__ inline void tma_load_3d_multicast(void* shared, const TensorMap& map, int x, int y,
                                             int z, uint64_t* barrier, uint16_t mask,
                                             [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  detail::tma_load_multicast(3, shared, map, {x, y, z}, barrier, mask, site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%3, %4, %5}], [%2], %6;"
      :
      : "r"(shared_address(shared)), "l"(&map), "r"(shared_address(barrier)), "r"(x), "r"(y),
        "r"(z), "h"(mask)
      : "memory");
#else
  __trap();
#endif
}

// Stores a box of a 2-dimensional tensor.
__device__ inline void tma_store_2d(const void* shared, const TensorMap& map, int x, int y,
                                    [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  detail::tma_store(2, shared, map, {x, y, 0}, site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%1, {%2, %3}], [%0];"
               :
               : "r"(shared_address(shared)), "l"(&map), "r"(x), "r"(y)
               : "memory");
#else
  __trap();
#endif
}

// Stores a box of a 3-dimensional tensor.
__device__ inline void tma_store_3d(const void* shared, const TensorMap& map, int x, int y, int z,
                                    [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  detail::tma_store(3, shared, map, {x, y, z}, site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%1, {%2, %3, %4}], [%0];"
      :
      : "r"(shared_address(shared)), "l"(&map), "r"(x), "r"(y), "r"(z)
      : "memory");
#else
  __trap();
#endif
}

// Closes a bulk group: the stores of this thread since the last one.
__device__ inline void tma_store_commit([[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  simulator::commit_group(simulator::AsyncKind::kBulk, simulator::current_thread());
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
#else
  __trap();
#endif
}

// Waits until at most the newest kPending bulk groups of this thread are unfinished.
template <int kPending>
__device__ inline void tma_store_wait([[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  simulator::wait_group(simulator::AsyncKind::kBulk, simulator::current_thread(), kPending);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.wait_group %0;" : : "n"(kPending) : "memory");
#else
  __trap();
#endif
}

// Waits until at most the newest kPending bulk groups of this thread have yet to read shared
// memory, which may then be written again. (The simulator reads and writes at one time.)
template <int kPending>
__device__ inline void tma_store_wait_read([[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  simulator::wait_group(simulator::AsyncKind::kBulk, simulator::current_thread(), kPending);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.wait_group.read %0;" : : "n"(kPending) : "memory");
#else
  __trap();
#endif
}

// Fetches the map itself ahead of its first use.
__device__ inline void tma_prefetch_map([[maybe_unused]] const TensorMap& map) {
#ifndef TILEGRAD_SIM
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("prefetch.tensormap [%0];" : : "l"(&map) : "memory");
#else
  __trap();
#endif
#endif
}

}  // namespace tilegrad::TILEGRAD_BACKEND
