// SPDX-License-Identifier: MIT
// Small kernels of which it is known what their memory accesses do: coalescing, bank conflicts,
// races, bounds. `trace_kernels NAME SCHEDULE` runs one and prints the trace's report (JSON);
// tests/test_sim_trace.py finds the lines by the marks in square brackets.
#include <cuda_runtime.h>

#include <cstdio>
#include <map>
#include <stdexcept>
#include <string>

#include "../../csrc/cuda/ptx/barrier.cuh"
#include "../../csrc/cuda/ptx/cp_async.cuh"
#include "../../csrc/cuda/ptx/mbarrier.cuh"
#include "../../csrc/cuda/ptx/tma.cuh"
#include "../../csrc/sim/launch.hpp"
#include "../../csrc/sim/trace.hpp"
#include "trace_resident.cuh"

namespace {

using namespace tilegrad::sim;
using tilegrad::simulator::launch;

constexpr int kSize = 128;  // matrices are kSize x kSize
constexpr int kTile = 32;

// ---- coalescing and bank conflicts --------------------------------------------------------------

__global__ void naive_kernel(float* out, const float* in) {
  const unsigned x = blockIdx.x * kTile + threadIdx.x, y = blockIdx.y * kTile + threadIdx.y;
  const float value = in[y * kSize + x];  // [naive load]
  out[x * kSize + y] = value;             // [naive store]
}

template <int kPitch>
__device__ inline void transpose(float* out, const float* in, float (*tile)[kPitch]) {
  const unsigned x = threadIdx.x, y = threadIdx.y;
  tile[y][x] = in[(blockIdx.y * kTile + y) * kSize + blockIdx.x * kTile + x];  // [tile fill]
  __syncthreads();
  const float value = tile[x][y];                                          // [tile load]
  out[(blockIdx.x * kTile + y) * kSize + blockIdx.y * kTile + x] = value;  // [tile store]
}
__global__ void tile32_kernel(float* out, const float* in) {
  __shared__ float tile[kTile][kTile];
  transpose(out, in, tile);
}
__global__ void tile33_kernel(float* out, const float* in) {
  __shared__ float tile[kTile][kTile + 1];
  transpose(out, in, tile);
}

__global__ void float4_kernel(float4* out, const float4* in) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = in[i];  // [float4 copy]
}

// 64-bit words of shared memory with a stride of 2 words: half warps, each 2-way.
__global__ void double_kernel(double* out) {
  __shared__ double tile[64];
  tile[threadIdx.x] = 1;
  tile[threadIdx.x + 32] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[2 * threadIdx.x];   // [double load]
  out[threadIdx.x] += tile[threadIdx.x / 8];  // [broadcast]
}

// A loop whose lanes leave it at different times, at an offset of one element.
__global__ void loop_kernel(float* out, const float* in) {
  float sum = 0;
  for (unsigned i = 0; i <= threadIdx.x; ++i) sum += in[1 + 32 * i + threadIdx.x];  // [loop load]
  out[threadIdx.x] = sum;
}

__global__ void cp_async_kernel(float* out, const float* in) {
  __shared__ __align__(16) float tile[4 * 128];
  const unsigned t = threadIdx.x;
  cp_async_16(&tile[4 * t], &in[4 * t]);  // [cp.async]
  cp_async_commit();
  cp_async_wait<0>();
  out[t] = tile[4 * t];  // [cp.async use]
}

// ---- races: each with and without what makes it right -------------------------------------------

template <bool kRight>
__global__ void read_after_write_kernel(float* out) {
  __shared__ float tile[128];
  const unsigned t = threadIdx.x;
  tile[t] = 1;  // [raw write]
  if (kRight) __syncthreads();
  out[t] = tile[127 - t];  // [raw read]
}

template <bool kRight>
__global__ void write_after_read_kernel(float* out) {
  __shared__ float tile[128];
  const unsigned t = threadIdx.x;
  float sum = 0;
  for (int i = 0; i < 2; ++i) {
    tile[t] = 2;  // [war write]
    __syncthreads();
    sum += tile[127 - t];  // [war read]
    if (kRight) __syncthreads();
  }
  out[t] = sum;
}

template <bool kRight>
__global__ void write_after_write_kernel(float* out) {
  __shared__ float last;
  if (!kRight || threadIdx.x == 0) last = 1;  // [waw write]
  __syncthreads();
  out[threadIdx.x] = last;
}

// Shuffles do not order memory; __syncwarp does.
template <bool kRight>
__global__ void shuffle_kernel(float* out) {
  __shared__ float tile[32];
  const unsigned t = threadIdx.x;
  tile[t] = 3;  // [shuffle write]
  if (kRight) {
    __syncwarp();
  } else {
    __shfl_xor_sync(0xffffffffu, 1.0f, 1);
  }
  out[t] = tile[31 - t];  // [shuffle read]
}

// Warps 0 and 1 meet at barrier 1; warp 2 does not.
template <bool kRight>
__global__ void named_barrier_kernel(float* out) {
  __shared__ float tile[96];
  const unsigned t = threadIdx.x;
  tile[t] = 1;  // [named write]
  if (t < 64) {
    named_barrier_sync(1, 64);
    out[t] = tile[kRight ? 63 - t : 95 - t];  // [named read]
  }
}

template <bool kRight>
__global__ void blocks_kernel(float* out) {
  if (threadIdx.x == 0) out[kRight ? blockIdx.x : 0] = 1;  // [blocks write]
}

// Neighbouring halves of a word belong to two threads.
template <bool kRight>
__global__ void narrow_kernel(uint16_t* out) {
  __shared__ uint16_t tile[64];
  tile[kRight ? threadIdx.x : threadIdx.x / 2] = 1;  // [narrow write]
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x / 2];
}

// The last block to count itself reads what the others wrote: ordered by the atomics alone.
template <bool kRight>
__global__ void atomics_kernel(unsigned* out, unsigned* counter) {
  out[1 + blockIdx.x] = blockIdx.x;  // [atomics write]
  const unsigned before = kRight ? atomicAdd(counter, 1u) : gridDim.x - 1;
  if (before != gridDim.x - 1) return;
  unsigned sum = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) sum += out[1 + i];  // [atomics read]
  out[8 + blockIdx.x] = sum;
}

template <bool kWait, bool kBarrier>
__global__ void copy_race_kernel(float* out, const float* in) {
  __shared__ __align__(16) float tile[128];
  const unsigned t = threadIdx.x;
  cp_async_4(&tile[t], &in[t]);  // [copy issue]
  cp_async_commit();
  if (kWait) cp_async_wait<0>();
  if (kBarrier) __syncthreads();
  out[t] = tile[127 - t];  // [copy read]
}

// A ring of one slot: warp 0 fills it, warp 1 empties it, or says so before it has.
template <bool kRight>
__global__ void ring_kernel(float* out) {
  struct Ring {
    uint64_t full, empty;
    float slot[32];
  };
  auto& ring = *static_cast<Ring*>(tilegrad::simulator::dynamic_shared_memory());
  const unsigned lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    mbarrier_init(&ring.full, 32);
    mbarrier_init(&ring.empty, 32);
  }
  __syncthreads();
  for (unsigned i = 0; i < 4; ++i) {
    if (threadIdx.x < 32) {
      mbarrier_wait(&ring.empty, (i & 1) ^ 1);
      ring.slot[lane] = static_cast<float>(i);  // [ring write]
      mbarrier_arrive(&ring.full);
    } else {
      mbarrier_wait(&ring.full, i & 1);
      if (!kRight) mbarrier_arrive(&ring.empty);
      out[lane] = ring.slot[31 - lane];  // [ring read]
      if (kRight) mbarrier_arrive(&ring.empty);
    }
  }
}

// The copy engine fills a box that a thread reads with or without waiting for it.
template <bool kRight>
__global__ void tma_kernel(uint16_t* out, const TensorMap map) {
  auto* box = static_cast<uint16_t*>(tilegrad::simulator::dynamic_shared_memory());
  auto* full = reinterpret_cast<uint64_t*>(box + 8 * 64);
  const unsigned t = threadIdx.x;
  if (t == 0) mbarrier_init(full, 1);
  __syncthreads();
  if (t == 0) {
    mbarrier_arrive_expect_tx(full, 8 * 128);
    tma_load_2d(box, map, 0, 0, full);  // [tma issue]
  }
  if (kRight || t == 0) mbarrier_wait(full, 0);
  out[t] = box[8 * t];  // [tma read]
}

// ---- bounds -------------------------------------------------------------------------------------

__global__ void past_the_end_kernel(float* out, const float* in, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i <= n) out[0] = in[i];  // [past read]
}
__global__ void crossing_kernel(float4* out, const float* in) {
  if (threadIdx.x == 2) out[0] = *reinterpret_cast<const float4*>(in + 8);  // [crossing read]
}
__global__ void before_kernel(float* out) {
  if (threadIdx.x == 7) out[-1] = 1;  // [before write]
}
__global__ void shared_end_kernel(float* out) {
  auto* tile = static_cast<float*>(tilegrad::simulator::dynamic_shared_memory());
  tile[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x + 1];  // [shared read]
}
__global__ void freed_kernel(float* out, const float* in) {
  if (threadIdx.x == 3) out[0] = in[1];  // [freed read]
}

// ---- the driver ---------------------------------------------------------------------------------

template <class T>
T* device(size_t n) {
  T* p = nullptr;
  if (cudaMalloc(&p, n * sizeof(T)) != cudaSuccess) throw std::runtime_error("cudaMalloc");
  cudaMemset(p, 0, n * sizeof(T));
  return p;
}

template <class... Parameters, class... Arguments>
void run(void (*kernel)(Parameters...), dim3 grid, dim3 block, Arguments... arguments) {
  launch(kernel, grid, block, 0, nullptr, arguments...);
}

void run_case(const std::string& name) {
  constexpr size_t kAll = kSize * kSize;
  const dim3 tiles(kSize / kTile, kSize / kTile), tile(kTile, kTile);
  auto* out = device<float>(kAll);
  auto* in = device<float>(kAll);
  // The name of a case ends in + for what is right and - for what is not.
  const bool right = name.back() == '+';
  const std::string stem = name.substr(0, name.size() - 1);
  if (name == "naive") return run(naive_kernel, tiles, tile, out, in);
  if (name == "tile32") return run(tile32_kernel, tiles, tile, out, in);
  if (name == "tile33") return run(tile33_kernel, tiles, tile, out, in);
  if (name == "float4") {
    return run(float4_kernel, kAll / 4 / 256, 256, reinterpret_cast<float4*>(out),
               reinterpret_cast<const float4*>(in));
  }
  if (name == "double") return run(double_kernel, 1, 32, reinterpret_cast<double*>(out));
  if (name == "loop") return run(loop_kernel, 1, 32, out, in);
  if (name == "cp_async") return run(cp_async_kernel, 1, 128, out, in);
  const auto pick = [&](auto* with, auto* without) { return right ? with : without; };
  if (stem == "raw") {
    return run(pick(read_after_write_kernel<true>, read_after_write_kernel<false>), 1, 128, out);
  }
  if (stem == "war") {
    return run(pick(write_after_read_kernel<true>, write_after_read_kernel<false>), 1, 128, out);
  }
  if (stem == "waw") {
    return run(pick(write_after_write_kernel<true>, write_after_write_kernel<false>), 1, 64, out);
  }
  if (stem == "shuffle") {
    return run(pick(shuffle_kernel<true>, shuffle_kernel<false>), 1, 32, out);
  }
  if (stem == "named") {
    return run(pick(named_barrier_kernel<true>, named_barrier_kernel<false>), 1, 96, out);
  }
  if (stem == "blocks") return run(pick(blocks_kernel<true>, blocks_kernel<false>), 3, 32, out);
  if (stem == "narrow") {
    return run(pick(narrow_kernel<true>, narrow_kernel<false>), 1, 64,
               reinterpret_cast<uint16_t*>(out));
  }
  if (stem == "atomics") {
    return run(pick(atomics_kernel<true>, atomics_kernel<false>), 4, 1, device<unsigned>(16),
               device<unsigned>(1));
  }
  if (stem == "copy") {
    return run(pick(copy_race_kernel<true, true>, copy_race_kernel<false, true>), 1, 128, out, in);
  }
  if (stem == "copy barrier") {
    return run(pick(copy_race_kernel<true, true>, copy_race_kernel<true, false>), 1, 128, out, in);
  }
  if (stem == "ring") {
    return launch(pick(ring_kernel<true>, ring_kernel<false>), 1, 64, 16 + 128, nullptr, out);
  }
  if (stem == "tma") {
    const TensorMap map = make_tensor_map(in, {2, {64, 8, 1}, {1, 64, 0}, {64, 8, 1}});
    return launch(pick(tma_kernel<true>, tma_kernel<false>), 1, 32, 8 * 128 + 8, nullptr,
                  reinterpret_cast<uint16_t*>(out), map);
  }
  if (run_resident(stem, right, out, in)) return;
  auto* ten = device<float>(10);
  if (name == "past") return run(past_the_end_kernel, 2, 8, out, ten, 10);
  if (name == "crossing") return run(crossing_kernel, 1, 32, reinterpret_cast<float4*>(out), ten);
  if (name == "before") return run(before_kernel, 1, 32, ten);
  if (name == "shared") return launch(shared_end_kernel, 1, 32, 128, nullptr, out);
  if (name == "freed") {
    cudaFree(ten);
    return run(freed_kernel, 1, 32, out, ten);
  }
  throw std::invalid_argument("no such case: " + name);
}

}  // namespace

int main(int, char** argument) {
  tilegrad::simulator::set_schedule(argument[2]);
  tilegrad::simulator::begin_trace();
  try {
    run_case(argument[1]);
  } catch (const std::runtime_error& error) {
    std::fprintf(stderr, "%s\n", error.what());
  }
  std::puts(tilegrad::simulator::end_trace().c_str());
}
