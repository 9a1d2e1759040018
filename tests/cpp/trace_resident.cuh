// SPDX-License-Identifier: MIT
// Races between resident blocks, each kernel with and without what makes it right: clusters of two
// blocks, and a cooperative grid.
#pragma once

#include "../../csrc/cuda/grid_barrier.cuh"
#include "../../csrc/cuda/ptx/cluster.cuh"
#include "../../csrc/cuda/ptx/grid_dependency.cuh"
#include "../../csrc/cuda/ptx/mbarrier.cuh"
#include "../../csrc/cuda/ptx/tma.cuh"

namespace {

using namespace tilegrad::sim;

template <class T>
__device__ inline T* block_memory() {
  return static_cast<T*>(tilegrad::simulator::dynamic_shared_memory());
}

// A block reads the other's words, a column of a (32, 33) tile.
template <bool kRight>
__global__ void cluster_kernel(float* out) {
  auto* const tile = block_memory<float>();
  for (int row = 0; row < 32; ++row) tile[33 * row + threadIdx.x] = 1;  // [cluster write]
  if (kRight) {
    cluster_sync();
  } else {
    __syncthreads();
  }
  const float* const theirs = cluster_peer(tile, cluster_rank() ^ 1);
  out[blockIdx.x * 32 + threadIdx.x] = theirs[33 * threadIdx.x];  // [cluster read]
  cluster_sync();
}

// A word for the other block, then an arrival at its mbarrier, or the other way round.
template <bool kRight>
__global__ void peer_kernel(float* out) {
  auto* const barrier = block_memory<uint64_t>();
  auto* const words = reinterpret_cast<float*>(barrier + 1);
  const int peer = cluster_rank() ^ 1;
  if (threadIdx.x == 0) mbarrier_init(barrier, 32);
  cluster_sync();
  if (!kRight) mbarrier_arrive_peer(barrier, peer);
  cluster_peer(words, peer)[threadIdx.x] = 2;  // [peer write]
  if (kRight) mbarrier_arrive_peer(barrier, peer);
  mbarrier_wait<WaitScope::cluster>(barrier, 0);
  out[blockIdx.x * 32 + threadIdx.x] = words[31 - threadIdx.x];  // [peer read]
  cluster_sync();
}

// The first block loads a box for both; each waits at its own mbarrier, or the second does not.
template <bool kRight>
__global__ void multicast_kernel(uint16_t* out, const TensorMap map) {
  auto* const box = block_memory<uint16_t>();
  auto* const full = reinterpret_cast<uint64_t*>(box + 8 * 64);
  const bool first = cluster_rank() == 0;
  if (threadIdx.x == 0) {
    mbarrier_init(full, 1);
    mbarrier_arrive_expect_tx(full, 8 * 128);
  }
  cluster_sync();
  if (first && threadIdx.x == 0) {
    tma_load_3d_multicast(box, map, 0, 0, 0, full, 3);  // [multicast issue]
  }
  if (kRight || first || threadIdx.x == 0) mbarrier_wait(full, 0);
  out[blockIdx.x * 32 + threadIdx.x] = box[8 * threadIdx.x];  // [multicast read]
  cluster_sync();
}

// Each block reads what the next one wrote.
template <bool kRight>
__global__ void grid_kernel(float* out, GridBarrier* barrier) {
  out[blockIdx.x * 32 + threadIdx.x] = 1;  // [grid write]
  if (kRight) grid_sync(barrier);
  const unsigned next = (blockIdx.x + 1) % gridDim.x;
  const float value = out[next * 32 + 31 - threadIdx.x];  // [grid read]
  grid_sync(barrier);
  out[blockIdx.x * 32 + threadIdx.x] = value + 1;  // [grid add]
}

// Reads before it has waited for the kernel ahead, or afterwards.
template <bool kRight>
__global__ void overlap_kernel(float* out, const float* in) {
  if (kRight) grid_dependency_wait();
  const float value = in[threadIdx.x];  // [overlap read]
  if (!kRight) grid_dependency_wait();
  out[blockIdx.x * 32 + threadIdx.x] = value;
}

// Runs the case; false: there is none of this name.
inline bool run_resident(const std::string& stem, bool right, float* out, const float* in) {
  using tilegrad::simulator::launch_resident;
  const auto pick = [&](auto* with, auto* without) { return right ? with : without; };
  const tilegrad::simulator::Residency two{2, false};
  if (stem == "cluster") {
    launch_resident(pick(cluster_kernel<true>, cluster_kernel<false>), 4, 32, 32 * 33 * 4, two,
                    nullptr, out);
  } else if (stem == "peer") {
    launch_resident(pick(peer_kernel<true>, peer_kernel<false>), 4, 32, 8 + 128, two, nullptr, out);
  } else if (stem == "multicast") {
    const TensorMap map = make_tensor_map(in, {3, {64, 8, 1}, {1, 64, 0}, {64, 8, 1}});
    launch_resident(pick(multicast_kernel<true>, multicast_kernel<false>), 2, 32, 8 * 128 + 8, two,
                    nullptr, reinterpret_cast<uint16_t*>(out), map);
  } else if (stem == "grid") {
    auto* const barrier = reinterpret_cast<GridBarrier*>(out + 4096);
    launch_resident(pick(grid_kernel<true>, grid_kernel<false>), 4, 32, 0, {1, true}, nullptr, out,
                    barrier);
  } else if (stem == "overlap") {
    launch_resident(pick(overlap_kernel<true>, overlap_kernel<false>), 2, 32, 0, {1, false, true},
                    nullptr, out, in);
  } else {
    return false;
  }
  return true;
}

}  // namespace
