// SPDX-License-Identifier: MIT
// launch(): the only place where a kernel starts, so that the same source runs on a GPU (nvcc) and
// in the simulator (a C++ compiler, TILEGRAD_SIM; there <cuda_runtime.h> is csrc/sim/include's).
#pragma once

#include <cuda_runtime.h>

#include <utility>

#include "../context.hpp"
#include "device.hpp"
#include "ptx/grid_dependency.cuh"
#ifdef TILEGRAD_SIM
#include "../sim/launch.hpp"
#endif

namespace tilegrad::TILEGRAD_BACKEND {

inline cudaStream_t stream_of(const Context& context) {
  return static_cast<cudaStream_t>(context.stream);
}

inline constexpr int kWarpSize = 32;
inline constexpr unsigned kFullMask = 0xffffffffu;

// The block's dynamic shared memory: launch's dynamic_bytes of it, aligned to 1024 bytes (what a
// swizzled tile of the tensor memory accelerator needs).
template <class T>
__device__ inline T* dynamic_smem() {
#ifdef TILEGRAD_SIM
  return static_cast<T*>(tilegrad::simulator::dynamic_shared_memory());
#else
  extern __shared__ __align__(1024) unsigned char tilegrad_dynamic_smem[];
  return reinterpret_cast<T*>(tilegrad_dynamic_smem);
#endif
}

// Starts kernel(arguments...) on a grid. An empty grid starts nothing. More than 48 KB of dynamic
// shared memory is asked of the driver here; more than the device has is a RuntimeError.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t dynamic_bytes,
            cudaStream_t stream, Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  check_launch(dynamic_bytes, reinterpret_cast<const void*>(kernel));
#ifdef TILEGRAD_SIM
  tilegrad::simulator::launch(kernel, grid, block, dynamic_bytes, stream,
                              std::forward<Arguments>(arguments)...);
#else
  // clang-format off: it would split the closing bracket
  kernel<<<grid, block, dynamic_bytes, stream>>>(std::forward<Arguments>(arguments)...);
  // clang-format on
#endif
  after_launch(stream);
}

// What a launch asks for beyond its arguments.
struct LaunchShape {
  dim3 grid, block;
  size_t dynamic_bytes = 0;
  // Neighbouring blocks along x that form a cluster (ptx/cluster.cuh): 1, or up to 8 on compute
  // capability 9.0, and grid.x is a multiple of it.
  unsigned cluster = 1;
  // All blocks are resident at once (resident_blocks), so that grid_sync may be used.
  bool cooperative = false;
  // The kernel may start before the one ahead of it has ended: launch_next sets it.
  bool overlaps = false;
};

// A kernel with a cluster or grid_sync has dynamic shared memory only: the simulator's blocks share
// one copy of static arrays.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
            Arguments&&... arguments) {
  const dim3 grid = shape.grid, block = shape.block;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  const void* const address = reinterpret_cast<const void*>(kernel);
  check_launch(shape.dynamic_bytes, address);
  check_residency(address, int64_t{grid.x} * grid.y * grid.z, block.x * block.y * block.z,
                  shape.dynamic_bytes, grid.x, shape.cluster, shape.cooperative);
#ifdef TILEGRAD_SIM
  tilegrad::simulator::launch_resident(kernel, grid, block, shape.dynamic_bytes,
                                       {shape.cluster, shape.cooperative, shape.overlaps}, stream,
                                       std::forward<Arguments>(arguments)...);
#else
  cudaLaunchAttribute attributes[3];
  unsigned count = 0;
  if (shape.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count].val.clusterDim.x = shape.cluster;
    attributes[count].val.clusterDim.y = attributes[count].val.clusterDim.z = 1;
    ++count;
  }
  if (shape.cooperative) {
    attributes[count].id = cudaLaunchAttributeCooperative;
    attributes[count++].val.cooperative = 1;
  }
  if (shape.overlaps && !shape.cooperative && device_info().compute_capability >= 90) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shape.dynamic_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = count;
  CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...));
#endif
  after_launch(stream);
}

// launch() for a kernel whose first statement is grid_dependency_wait(): inside an OverlapScope it
// may start while the kernel before it in the stream still runs, and waits for its results there.
// tests/test_overlap.py holds every kernel to this.
template <class... Parameters, class... Arguments>
void launch_next(void (*kernel)(Parameters...), const LaunchShape& shape, Context& context,
                 Arguments&&... arguments) {
  LaunchShape own = shape;
  own.overlaps = launches_overlap();
  launch(kernel, own, stream_of(context), std::forward<Arguments>(arguments)...);
}

template <class... Parameters, class... Arguments>
void launch_next(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t dynamic_bytes,
                 Context& context, Arguments&&... arguments) {
  LaunchShape shape;
  shape.grid = grid;
  shape.block = block;
  shape.dynamic_bytes = dynamic_bytes;
  launch_next(kernel, shape, context, std::forward<Arguments>(arguments)...);
}

// How many blocks of the kernel, of `block` threads each, fit the device at once.
template <class... Parameters>
unsigned resident_blocks(void (*kernel)(Parameters...), dim3 block, size_t dynamic_bytes) {
  return resident_blocks(reinterpret_cast<const void*>(kernel), block.x * block.y * block.z,
                         dynamic_bytes);
}

// Blocks of `block` threads that cover n elements, `each` a thread, in a grid-stride loop: enough
// to fill the device several times over, never more than a grid may have.
inline unsigned blocks_for(int64_t n, int block, int each = 1) {
  const int64_t per_block = int64_t{block} * each;
  const int64_t wanted = (n + per_block - 1) / per_block;
  const int64_t most = int64_t{device_info().multiprocessors} * 32;
  return static_cast<unsigned>(wanted < most ? wanted : most);
}

}  // namespace tilegrad::TILEGRAD_BACKEND
