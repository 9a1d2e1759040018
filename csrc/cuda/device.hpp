// SPDX-License-Identifier: MIT
// What is known of the device that the calling thread works on, and errors of the CUDA runtime.
// On the simulator the same calls answer for a device that TILEGRAD_SIM_CC describes.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace tilegrad::TILEGRAD_BACKEND {

struct DeviceInfo {
  int index = 0;
  int compute_capability = 0;  // of the code that it runs, so that kernels are chosen by it
  int multiprocessors = 0;
  size_t shared_bytes = 0;  // dynamic shared memory that one block may have
};

// Of the current device; asked of the driver once (of the simulator each time: tests change it).
const DeviceInfo& device_info();

// 90 for 9.0: the device's own, whatever code it runs.
int device_capability(int device);

// RuntimeError "op: what failed; got <CUDA's text>" unless the call succeeded.
void check_cuda(cudaError_t error, const char* what);

// The two halves of launch() that need no template: allow the dynamic shared memory beforehand,
// report a failed launch afterwards (and with TILEGRAD_SYNC=1 wait for the kernel to end).
void check_launch(size_t dynamic_bytes, const void* kernel);
void after_launch(cudaStream_t stream);

// While one lives, kernels that this host thread starts by launch_next may overlap.
class OverlapScope {
 public:
  OverlapScope();
  ~OverlapScope();
  OverlapScope(const OverlapScope&) = delete;
  OverlapScope& operator=(const OverlapScope&) = delete;
};
bool launches_overlap();

// How many blocks of so many threads fit the device at once.
unsigned resident_blocks(const void* kernel, unsigned threads, size_t dynamic_bytes);

// RuntimeError for a cluster that the device cannot have, and for a cooperative grid that does not
// fit it.
void check_residency(const void* kernel, int64_t blocks, unsigned threads, size_t dynamic_bytes,
                     unsigned blocks_x, unsigned cluster, bool cooperative);

}  // namespace tilegrad::TILEGRAD_BACKEND

// Every call of the CUDA runtime goes through it.
#define CUDA_CHECK(call) ::tilegrad::TILEGRAD_BACKEND::check_cuda((call), #call)
