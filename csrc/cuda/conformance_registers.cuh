// SPDX-License-Identifier: MIT
// Cases of conformance.cu for wgmma with an operand in registers and for pairs of 16-bit floats.
#pragma once

#include "conformance_cases.cuh"
#include "ptx/pack.cuh"
#include "ptx/wgmma_registers.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// 128 words, a hash of each thread's accumulators.
template <int kN, class T, Major kMajorB>
__global__ void wgmma_registers_kernel(uint32_t* out) {
  auto* const shared = dynamic_smem<uint32_t>();  // b: 16 KB
  const uint32_t tid = threadIdx.x;
  for (uint32_t i = tid; i < 4 * 1024; i += 128) shared[i] = packed<T, false>(i);
  fence_proxy_async();
  // The tile is there.
  __syncthreads();
  uint32_t a[8];  // the second half is the operand
#pragma unroll
  for (int i = 0; i < 8; ++i) a[i] = packed<T, false>(50000 + tid * 8 + i);
  float d[kN / 2];
#pragma unroll
  for (int i = 0; i < kN / 2; ++i) d[i] = input<false>(90000 + tid * (kN / 2) + i);
  wgmma_fence();
  wgmma_m64k16_registers<kN, T, kMajorB, 1>(
      d, a, wgmma_descriptor(shared + (kMajorB == Major::k ? 8 : 512), 8192, 1024));
  wgmma_commit();
  wgmma_wait<0>();
  wgmma_settle(d);
  uint32_t digest = 0;
#pragma unroll
  for (int i = 0; i < kN / 2; ++i) digest = hash(digest * 31 + output<false>(d[i]));
  out[tid] = digest;
}

// 512 words: the four sums of each thread.
template <class T>
__global__ void wgmma_sums_kernel(uint32_t* out) {
  auto* const shared = dynamic_smem<uint32_t>();  // a at 0, b at 8 KB: 9 KB
  const uint32_t tid = threadIdx.x;
  for (uint32_t i = tid; i < 9 * 256; i += 128) shared[i] = packed<T, false>(i);
  fence_proxy_async();
  // Both tiles are there.
  __syncthreads();
  float d[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) d[i] = input<false>(90000 + tid * 4 + i);
  wgmma_fence();
  wgmma_m64n8k16_sums<T>(d, wgmma_descriptor(shared, 8192, 1024),
                         wgmma_descriptor(shared + 2048, 16, 1024));
  wgmma_commit();
  wgmma_wait<0>();
  wgmma_settle(d);
#pragma unroll
  for (int i = 0; i < 4; ++i) out[tid * 4 + i] = output<false>(d[i]);
}

// 1024 words: floats near the ties of both formats, and NaN.
__global__ void pack_kernel(uint32_t* out) {
  const uint32_t i = threadIdx.x;
  const float low = bits_to_float((hash(i) & 0x8001ffffu) | (0x38000000u + i * 0x40000u));
  const float high = i % 32 == 0 ? bits_to_float(0x7fc00001u) : -low;
  out[i] = floats_to_bfloats(low, high);
  out[256 + i] = floats_to_bfloats_relu(low, high);
  out[512 + i] = floats_to_halves(low, high);
  out[768 + i] = floats_to_halves_relu(low, high);
}

}  // namespace tilegrad::TILEGRAD_BACKEND
