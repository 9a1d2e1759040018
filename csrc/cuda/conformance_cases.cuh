// SPDX-License-Identifier: MIT
// The cases of the conformance program: each runs one instruction of ptx/ on inputs that an integer
// hash gives, and leaves 32-bit words. Words that must agree bit for bit come from conversions,
// copies and sums of small integers, which any order adds exactly; `rounding` cases hold floats.
#pragma once

#include <cstdint>
#include <vector>

#include "launch.cuh"
#include "numeric.cuh"
#include "ptx/barrier.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/fence.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/mma.cuh"
#include "ptx/setmaxnreg.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

TILEGRAD_HOST_DEVICE inline uint32_t hash(uint32_t x) {
  x = (x ^ x >> 16) * 0x7feb352du;
  x = (x ^ x >> 15) * 0x846ca68bu;
  return x ^ x >> 16;
}

// -8 .. 8, or where kRounding a multiple of 2^-10 between -1 and 1.
template <bool kRounding>
__device__ inline float input(uint32_t i) {
  const int n = static_cast<int>(hash(i) % (kRounding ? 2049 : 17)) - (kRounding ? 1024 : 8);
  return static_cast<float>(n) * (kRounding ? 0x1p-10f : 1.0f);
}

// A sum as a word: an integer where it is exact.
template <bool kRounding>
__device__ inline uint32_t output(float x) {
  return kRounding ? float_to_bits(x) : static_cast<uint32_t>(static_cast<int>(x));
}

template <class T, bool kRounding>
__device__ inline uint32_t packed(uint32_t i) {
  if constexpr (sizeof(T) == 4) {
    return float_to_tf32(float_to_bits(input<kRounding>(i)));
  } else {
    return narrow<T>(input<kRounding>(2 * i)).bits |
           static_cast<uint32_t>(narrow<T>(input<kRounding>(2 * i + 1)).bits) << 16;
  }
}

// 768 words: halves as floats, floats of any exponent as halves, floats near the halves.
__global__ void convert_kernel(uint32_t* out) {
  const uint32_t i = threadIdx.x;
  out[i] = float_to_bits(half_to_float(static_cast<uint16_t>(i * 128 + hash(i) % 128)));
  const uint32_t near_half = (hash(i) & 0x80000fffu) | (0x38000000u + i * 0x40000u);
  out[256 + i] = float_to_half(bits_to_float(hash(1000 + i)));
  out[512 + i] = float_to_half(bits_to_float(near_half));
}
__global__ void tf32_kernel(uint32_t* out) {
  const uint32_t i = threadIdx.x;
  out[i] = float_to_tf32(hash(2000 + i) & 0xbfffffffu);  // no infinity, no NaN
  out[256 + i] = float_to_tf32((i << 12) | 0x3f800000u);
}

// 12 words a thread: copies of 16, 8, 4 and 10 bytes, and none.
__global__ void cp_async_kernel(uint32_t* out, const uint32_t* from) {
  unsigned char* const tile = dynamic_smem<unsigned char>() + threadIdx.x * 48;
  const auto* const source = reinterpret_cast<const unsigned char*>(from + threadIdx.x * 12);
  cp_async_16(tile, source);
  cp_async_8(tile + 16, source + 16);
  cp_async_4(tile + 24, source + 24);
  cp_async_4_zfill(tile + 28, source + 28, false);
  cp_async_commit();
  cp_async_partial<16>(tile + 32, source + 32, 10);
  cp_async_commit();
  cp_async_wait<1>();
  for (int i = 0; i < 8; ++i) out[threadIdx.x * 12 + i] = reinterpret_cast<uint32_t*>(tile)[i];
  cp_async_wait<0>();
  for (int i = 8; i < 12; ++i) out[threadIdx.x * 12 + i] = reinterpret_cast<uint32_t*>(tile)[i];
}

// 14 words a lane: x1, x2, x4, then the same transposed.
__global__ void ldmatrix_kernel(uint32_t* out) {
  auto* const words = dynamic_smem<uint32_t>();
  const uint32_t lane = threadIdx.x;
  for (uint32_t i = lane; i < 128; i += 32) words[i] = hash(i);
  // The matrices are there.
  __syncthreads();
  const uint32_t* const row = words + (lane * 11 + 3) % 32 * 4;
  uint32_t one[2][1], two[2][2], four[2][4];
  ldmatrix_x1(one[0], row);
  ldmatrix_x2(two[0], row);
  ldmatrix_x4(four[0], row);
  ldmatrix_x1_trans(one[1], row);
  ldmatrix_x2_trans(two[1], row);
  ldmatrix_x4_trans(four[1], row);
  for (int t = 0; t < 2; ++t) {
    uint32_t* const mine = out + lane * 14 + t * 7;
    mine[0] = one[t][0];
    for (int i = 0; i < 2; ++i) mine[1 + i] = two[t][i];
    for (int i = 0; i < 4; ++i) mine[3 + i] = four[t][i];
  }
}

// 4 words a lane. T float means tf32.
template <class T, bool kRounding>
__global__ void mma_kernel(uint32_t* out) {
  const uint32_t lane = threadIdx.x;
  uint32_t a[4], b[2];
  float d[4];
  for (uint32_t i = 0; i < 4; ++i) a[i] = packed<T, kRounding>(lane * 4 + i);
  for (uint32_t i = 0; i < 2; ++i) b[i] = packed<T, kRounding>(1000 + lane * 2 + i);
  for (uint32_t i = 0; i < 4; ++i) d[i] = input<kRounding>(5000 + lane * 4 + i);
  if constexpr (sizeof(T) == 4) {
    mma_m16n8k8_tf32(d, a, b);
  } else if constexpr (std::is_same_v<T, bfloat16>) {
    mma_m16n8k16_bf16(d, a, b);
  } else {
    mma_m16n8k16_f16(d, a, b);
  }
  for (int i = 0; i < 4; ++i) out[lane * 4 + i] = output<kRounding>(d[i]);
}

// 64 words: what one warp hands to another through three phases of an mbarrier.
__global__ void mbarrier_kernel(uint32_t* out) {
  auto* const barrier = dynamic_smem<uint64_t>();
  auto* const value = reinterpret_cast<uint32_t*>(barrier + 1);
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 32);
    out[0] = mbarrier_try_wait(barrier, 1);
    fence_mbarrier_init();
  }
  // The mbarrier is initialised.
  __syncthreads();
  for (uint32_t round = 0; round < 3; ++round) {
    if (threadIdx.x >= 32) {
      value[threadIdx.x - 32] = hash(100 * round + threadIdx.x);
      mbarrier_arrive(barrier);
      named_barrier_arrive(2, 64);
      named_barrier_sync(1, 64);
    } else {
      mbarrier_wait(barrier, round % 2);
      if (threadIdx.x > 0) out[threadIdx.x + 31 * (round % 2)] = value[threadIdx.x];
      named_barrier_sync(2, 64);
      named_barrier_sync(1, 64);
    }
  }
}

// 384 words: warpgroups give and take registers.
__global__ __launch_bounds__(384, 1) void setmaxnreg_kernel(uint32_t* out) {
  if (threadIdx.x < 128) {
    setmaxnreg_dec<40>();
    out[threadIdx.x] = hash(threadIdx.x);
  } else {
    setmaxnreg_inc<232>();
    out[threadIdx.x] = hash(threadIdx.x) + 1;
  }
}

// 2 x 1024 words from (3, 21, 96) elements of 16 bits, of which 90 columns count: a box (16, 64)
// of one map in 2 and one in 3 dimensions. `target` receives the first.
__global__ void tma_kernel(uint32_t* out, const __grid_constant__ TensorMap map_2d,
                           const __grid_constant__ TensorMap map_3d,
                           const __grid_constant__ TensorMap target, int x, int y) {
  auto* const tile = dynamic_smem<uint32_t>();  // (2, 512), mbarrier
  auto* const barrier = reinterpret_cast<uint64_t*>(tile + 1024);
  if (threadIdx.x == 0) {
    tma_prefetch_map(map_2d);
    mbarrier_init(barrier, 1);
    fence_mbarrier_init();
    mbarrier_arrive_expect_tx(barrier, 4096);
    tma_load_2d(tile, map_2d, x, y, barrier);
    tma_load_3d(tile + 512, map_3d, x, y, 2, barrier);
  }
  // The mbarrier is initialised.
  __syncthreads();
  mbarrier_wait(barrier, 0);
  for (uint32_t i = threadIdx.x; i < 1024; i += 128) out[i] = tile[i];
  fence_proxy_async();
  // The tile is as all threads left it.
  __syncthreads();
  if (threadIdx.x == 0) {
    tma_store_2d(tile, target, x, y);
    tma_store_commit();
    tma_store_wait<0>();
  }
}

// 128 words, a hash of each thread's accumulators; where kRounding all of them, kN / 2 a thread.
template <int kN, class T, Major kMajorA, Major kMajorB, bool kRounding>
__global__ void wgmma_kernel(uint32_t* out) {
  auto* const shared = dynamic_smem<uint32_t>();  // a at 0, b at 8 KB: 48 KB
  const uint32_t tid = threadIdx.x;
  for (uint32_t i = tid; i < 12 * 1024; i += 128) shared[i] = packed<T, kRounding>(i);
  fence_proxy_async();
  // Both tiles are there.
  __syncthreads();
  const auto describe = [&](const uint32_t* tile, Major major) {
    const int step = major == Major::k ? 32 : 2048;  // the second 16 of k
    return wgmma_descriptor(tile + step / 4, major == Major::k ? 16 : 8192, 1024);
  };
  float d[kN / 2];
#pragma unroll
  for (int i = 0; i < kN / 2; ++i) d[i] = input<kRounding>(90000 + tid * (kN / 2) + i);
  wgmma_fence();
  wgmma_m64k16<kN, T, kMajorA, kMajorB>(d, describe(shared, kMajorA),
                                        describe(shared + 2048, kMajorB));
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
