// SPDX-License-Identifier: MIT
// The device that the simulator stands for, and what the host API keeps. Private to the runtime.
#pragma once

#include <cstddef>
#include <functional>

#include "include/sim_host.h"

namespace tilegrad::simulator {

struct DeviceModel {
  int compute_capability;   // TILEGRAD_SIM_CC: 75, 80 or 90
  size_t shared_per_block;  // without asking
  size_t shared_per_block_optin;
  size_t shared_per_multiprocessor;
  unsigned threads_per_multiprocessor;
  unsigned blocks_per_multiprocessor;
};
unsigned multiprocessors();
const DeviceModel& device_model();  // std::invalid_argument for another TILEGRAD_SIM_CC

// Dynamic shared memory that cudaFuncSetAttribute allowed the kernel, at least 48 KB.
size_t allowed_dynamic_bytes(const void* kernel);

// Blocks of so many threads and bytes that a multiprocessor holds at once; registers do not count.
unsigned resident_blocks(unsigned threads, size_t dynamic_bytes);

cudaError_t set_error(cudaError_t error);  // for cudaGetLastError; returns it

// Does `work` now, or records it if the stream is being captured.
cudaError_t submit(cudaStream_t stream, std::function<cudaError_t()> work);
// cudaSuccess unless a capture forbids calls that are not in stream order (cudaMalloc ..).
cudaError_t forbid_in_capture();

}  // namespace tilegrad::simulator
