// SPDX-License-Identifier: MIT
// Clusters: up to 8 neighbouring blocks (LaunchShape::cluster) that run at once, meet at a barrier
// of their own and reach each other's shared memory. A block's shared memory is gone when the block
// ends: the last access to a peer's goes before a cluster_sync of both.
// Source: PTX ISA, Parallel Synchronization and Communication: barrier.cluster, mbarrier; Data
// Movement and Conversion: mapa; Special Registers: %cluster_ctarank, %cluster_nctarank.
#pragma once

#include "mbarrier.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// Blocks of this block's cluster; 1 without a cluster.
__device__ inline int cluster_size() {
#ifdef TILEGRAD_SIM
  return static_cast<int>(simulator::cluster_size());
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  uint32_t size;
  asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return static_cast<int>(size);
#else
  return 1;
#endif
}

// This block's place in its cluster.
__device__ inline int cluster_rank() {
#ifdef TILEGRAD_SIM
  return static_cast<int>(simulator::cluster_rank());
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
#else
  return 0;
#endif
}

// Counts this thread at the cluster's barrier, and goes on; what it wrote before is visible to
// those that have waited (release). Every thread arrives and then waits, by turns.
__device__ inline void cluster_arrive([[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  simulator::cluster_barrier_arrive(site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
#else
  __trap();
#endif
}

// Waits until all threads of the cluster that have not returned have arrived (acquire).
__device__ inline void cluster_wait([[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  simulator::cluster_barrier_wait(site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
#else
  __trap();
#endif
}

// __syncthreads of the cluster.
__device__ inline void cluster_sync(Site site = here()) {
  cluster_arrive(site);
  cluster_wait(site);
}

// The same place in the dynamic shared memory of the rank-th block; it may be this one. An ordinary
// pointer: loads and stores through it work.
template <class T>
__device__ inline T* cluster_peer(T* shared, int rank, [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  const void* const there =
      simulator::cluster_address(shared, static_cast<unsigned>(rank), "mapa", site);
  return static_cast<T*>(const_cast<void*>(there));
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  uint64_t there;
  asm volatile("mapa.u64 %0, %1, %2;"
               : "=l"(there)
               : "l"(reinterpret_cast<uint64_t>(shared)), "r"(rank));
  return reinterpret_cast<T*>(there);
#else
  __trap();
  return shared;
#endif
}

// One arrival at the mbarrier in the same place of the rank-th block; what this thread wrote
// before, also to a peer's shared memory, is visible to those that wait there with
// mbarrier_wait<WaitScope::cluster>.
__device__ inline void mbarrier_arrive_peer(uint64_t* barrier, int rank,
                                            [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  simulator::mbarrier_arrive_in_cluster(cluster_peer(barrier, rank, site), site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n"
      "}"
      :
      : "r"(shared_address(barrier)), "r"(rank)
      : "memory");
#else
  __trap();
#endif
}

// The same for a thread that has written nothing that must be seen: it gives back what it has read,
// a stage of a ring. The release is of the block only, so no fence of the whole device goes before.
__device__ inline void mbarrier_return_peer(uint64_t* barrier, int rank,
                                            [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  simulator::mbarrier_arrive_in_cluster(cluster_peer(barrier, rank, site), site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
      "}"
      :
      : "r"(shared_address(barrier)), "r"(rank)
      : "memory");
#else
  __trap();
#endif
}

}  // namespace tilegrad::TILEGRAD_BACKEND
