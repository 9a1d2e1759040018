// SPDX-License-Identifier: MIT
// Cases of the conformance program with several blocks that are resident together: clusters, the
// barrier of a grid, and kernels that overlap.
#pragma once

#include "conformance_cases.cuh"
#include "grid_barrier.cuh"
#include "ptx/cluster.cuh"
#include "ptx/grid_dependency.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// 4 blocks of 64 threads in clusters of 2; 192 words a block: what the peer wrote into this block's
// shared memory, what it holds in its own, and what it sent with an arrival at an mbarrier here.
__global__ void cluster_kernel(uint32_t* out) {
  auto* const barrier = dynamic_smem<uint64_t>();
  auto* const words = reinterpret_cast<uint32_t*>(barrier + 1);  // (3, 64)
  const int peer = cluster_rank() ^ 1, tid = static_cast<int>(threadIdx.x);
  uint32_t* const mine = out + blockIdx.x * 192;
  if (tid == 0) {
    mbarrier_init(barrier, 64);
    fence_mbarrier_init();
  }
  words[tid] = hash(blockIdx.x * 1000 + threadIdx.x);
  // The mbarriers are initialised and the first words there, in both blocks.
  cluster_sync();
  cluster_peer(words + 64, peer)[63 - tid] =
      hash(words[tid] + static_cast<uint32_t>(cluster_size()));
  cluster_arrive();
  mine[tid] = cluster_peer(words, peer)[(tid * 7 + 3) % 64];
  // The peer's words have come.
  cluster_wait();
  mine[64 + tid] = words[64 + tid];
  cluster_peer(words + 128, peer)[tid] = hash(5000 + blockIdx.x * 64 + threadIdx.x);
  mbarrier_arrive_peer(barrier, peer);
  mbarrier_wait<WaitScope::cluster>(barrier, 0);
  mine[128 + tid] = words[128 + tid];
  // The peer has sent its last words before this block may end.
  cluster_sync();
}

// 2 blocks, a cluster: each loads one half of the boxes for both; 2048 words a block.
__global__ void multicast_kernel(uint32_t* out, const __grid_constant__ TensorMap map) {
  auto* const tile = dynamic_smem<uint32_t>();  // (4, 512), mbarrier
  auto* const barrier = reinterpret_cast<uint64_t*>(tile + 2048);
  const int rank = cluster_rank();
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    fence_mbarrier_init();
    mbarrier_arrive_expect_tx(barrier, 3 * 2048);
  }
  // The mbarriers of both blocks are initialised.
  cluster_sync();
  if (threadIdx.x == 0) {
    tma_load_3d_multicast(tile + rank * 512, map, 8, 3, rank, barrier, 3);
    tma_load_3d_multicast(tile + 1024 + rank * 512, map, 40, 10, 2, barrier,
                          static_cast<uint16_t>(2 - rank));
  }
  mbarrier_wait(barrier, 0);
  for (uint32_t i = threadIdx.x; i < 1024; i += blockDim.x) out[blockIdx.x * 1024 + i] = tile[i];
  uint32_t* const rest = out + 2048 + blockIdx.x * 512;
  const uint32_t* const other = tile + 1024 + (rank ^ 1) * 512;
  for (uint32_t i = threadIdx.x; i < 512; i += blockDim.x) rest[i] = other[i];
  // A block's shared memory is there until the peer's copies have come.
  cluster_sync();
}

// 4 blocks of 64 threads, all resident: three rounds in which each reads what another wrote before
// the barrier. 256 words, and the counter.
__global__ void grid_barrier_kernel(uint32_t* out, GridBarrier* barrier, uint32_t* words) {
  const uint32_t self = blockIdx.x * blockDim.x + threadIdx.x, count = gridDim.x * blockDim.x;
  uint32_t value = self;
  for (uint32_t round = 0; round < 3; ++round) {
    words[self] = hash(value + round);
    // All words of this round are written.
    grid_sync(barrier);
    value = words[(self * 5 + 64 * (round + 1)) % count];
    // All have read them.
    grid_sync(barrier);
  }
  out[self] = value;
  if (self == 0) out[count] = barrier->counter;
}

// Each launch in a row adds to what the one before it left.
__global__ void dependency_kernel(uint32_t* out, uint32_t round) {
  grid_dependency_wait();
  const uint32_t self = blockIdx.x * blockDim.x + threadIdx.x;
  const uint32_t from = (self + 64) % (gridDim.x * blockDim.x);
  uint32_t* const now = out + (round % 2) * 256;
  const uint32_t* const before = out + (round + 1) % 2 * 256;
  now[self] = hash(before[from] + round);
}

}  // namespace tilegrad::TILEGRAD_BACKEND
