// SPDX-License-Identifier: MIT
// Starts a kernel in the simulator: what kernel<<<grid, block, bytes, stream>>>(arguments...) is.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "include/cuda_runtime.h"

namespace tilegrad::simulator {

// Which blocks are resident together. `cluster` neighbours along x reach each other's shared
// memory; where cooperative, all blocks of the grid wait for one another. A kernel that overlaps
// the one before it on a GPU must call grid_dependency_wait in every thread.
struct Residency {
  unsigned cluster = 1;
  bool cooperative = false;
  bool overlaps = false;
};

// A kernel with its arguments, by value: a captured graph keeps it and runs it again.
struct KernelCall {
  void (*invoke)(const void* kernel, const void* arguments);
  const void* kernel;
  std::shared_ptr<const void> arguments;
  dim3 grid, block;
  size_t dynamic_bytes;
  Residency residency;
};

// Runs the call, or records it when the stream is being captured. A launch that CUDA refuses sets
// the error that cudaGetLastError returns; a fault of the kernel is thrown as std::runtime_error.
void launch_call(KernelCall call, cudaStream_t stream);

template <class... Parameters, class... Arguments>
void launch_resident(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t dynamic_bytes,
                     Residency residency, cudaStream_t stream, Arguments&&... arguments) {
  using Values = std::tuple<std::remove_cv_t<Parameters>...>;
  using Kernel = void (*)(Parameters...);
  static_assert((!std::is_reference_v<Parameters> && ...), "kernels take their arguments by value");
  KernelCall call{[](const void* function, const void* values) {
                    std::apply(reinterpret_cast<Kernel>(const_cast<void*>(function)),
                               *static_cast<const Values*>(values));
                  },
                  reinterpret_cast<const void*>(kernel),
                  std::make_shared<const Values>(std::forward<Arguments>(arguments)...),
                  grid,
                  block,
                  dynamic_bytes,
                  residency};
  launch_call(std::move(call), stream);
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t dynamic_bytes,
            cudaStream_t stream, Arguments&&... arguments) {
  launch_resident(kernel, grid, block, dynamic_bytes, {}, stream,
                  std::forward<Arguments>(arguments)...);
}

// The running block's dynamic shared memory, aligned to 1024 bytes.
TILEGRAD_FOR_KERNELS void* dynamic_shared_memory();
size_t dynamic_shared_bytes();

// griddepcontrol.wait of the running thread.
void grid_dependency_wait();

// Is the address in the running block's shared memory (dynamic or static)?
bool is_shared(const void* address);

// The order of threads, of blocks and of asynchronous operations: "forward", "reverse" or
// "random[:seed]", then optionally "/eager", "/lazy" or "/random". Without a choice the environment
// variable TILEGRAD_SIM_SCHEDULE holds, else "forward/eager". "random:7" is "random:7/random".
// std::invalid_argument for other text.
void set_schedule(const std::string& text);
std::string schedule();

// Called between blocks, every tenth of a second or so; it may throw to end the launch (Ctrl-C).
void set_interrupt_check(void (*check)());

// The device that host code sees: 75, 80 or 90 (std::invalid_argument for others), from now on.
// Before that the environment variable TILEGRAD_SIM_CC holds, else 90.
void set_compute_capability(int compute_capability);

// How much work on `other` a device could still be doing while it does the next on `stream`: no
// event orders them. The simulator itself does all at once.
uint64_t work_not_awaited(cudaStream_t stream, cudaStream_t other);

}  // namespace tilegrad::simulator
