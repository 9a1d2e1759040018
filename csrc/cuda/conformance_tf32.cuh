// SPDX-License-Identifier: MIT
// Cases of the conformance program for tf32 on Hopper: how the copy engine rounds, and wgmma.
#pragma once

#include "conformance_cases.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// 512 words: a box (16, 32) of floats, loaded as tf32.
__global__ void tma_tf32_kernel(uint32_t* out, const __grid_constant__ TensorMap map) {
  auto* const tile = dynamic_smem<uint32_t>();  // (16, 32), mbarrier
  auto* const barrier = reinterpret_cast<uint64_t*>(tile + 512);
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    fence_mbarrier_init();
    mbarrier_arrive_expect_tx(barrier, 2048);
    tma_load_2d(tile, map, 0, 0, barrier);
  }
  // The mbarrier is initialised.
  __syncthreads();
  mbarrier_wait(barrier, 0);
  for (uint32_t i = threadIdx.x; i < 512; i += 128) out[i] = tile[i];
}

// 128 words, a hash of each thread's accumulators; where kRounding all of them, kN / 2 a thread.
// Bits that must not be read are set.
template <int kN, bool kRounding>
__global__ void wgmma_tf32_kernel(uint32_t* out) {
  auto* const shared = dynamic_smem<uint32_t>();  // a at 0, b at 8 KB: 40 KB
  const uint32_t tid = threadIdx.x;
  for (uint32_t i = tid; i < 10 * 1024; i += 128) {
    shared[i] = packed<float, kRounding>(i) | 0x1fffu;
  }
  fence_proxy_async();
  // Both tiles are there.
  __syncthreads();
  float d[kN / 2];
#pragma unroll
  for (int i = 0; i < kN / 2; ++i) d[i] = input<kRounding>(90000 + tid * (kN / 2) + i);
  wgmma_fence();
  wgmma_m64k8_tf32<kN>(d, wgmma_descriptor(shared + 8, 16, 1024),
                       wgmma_descriptor(shared + 2048 + 8, 16, 1024));
  wgmma_commit();
  wgmma_wait<0>();
  wgmma_settle(d);
  if constexpr (kRounding) {
#pragma unroll
    for (int i = 0; i < kN / 2; ++i) out[tid * (kN / 2) + i] = float_to_bits(d[i]);
  } else {
    uint32_t digest = 0;
#pragma unroll
    for (int i = 0; i < kN / 2; ++i) digest = hash(digest * 31 + output<false>(d[i]));
    out[tid] = digest;
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
