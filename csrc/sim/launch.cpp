// SPDX-License-Identifier: MIT
#include "launch.hpp"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <utility>
#include <vector>

#include "device.hpp"
#include "memory.hpp"
#include "scheduler.hpp"
#include "trace_hooks.hpp"

namespace tilegrad::simulator {
namespace {

constexpr size_t kMaxStatic = 48 * 1024;
constexpr unsigned kMostCluster = 8;  // that every device of compute capability 9.0 has
constexpr std::chrono::milliseconds kPatience{100};

void (*interrupt_check)() = nullptr;

cudaError_t check_configuration(const KernelCall& call) {
  const dim3 grid = call.grid, block = call.block;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || block.x > 1024 || block.y > 1024 || block.z > 64) {
    return cudaErrorInvalidConfiguration;
  }
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
      grid.z > 65535) {
    return cudaErrorInvalidConfiguration;
  }
  if (call.dynamic_bytes > allowed_dynamic_bytes(call.kernel)) return cudaErrorInvalidValue;
  const unsigned cluster = call.residency.cluster;
  if (cluster == 0 || cluster > kMostCluster || grid.x % cluster != 0) {
    return cudaErrorInvalidClusterSize;
  }
  if (cluster > 1 && device_model().compute_capability < 90) return cudaErrorNotSupported;
  const uint64_t most =
      uint64_t{resident_blocks(static_cast<unsigned>(threads), call.dynamic_bytes)} *
      multiprocessors();
  if (call.residency.cooperative && uint64_t{grid.x} * grid.y * grid.z > most) {
    return cudaErrorCooperativeLaunchTooLarge;
  }
  return cudaSuccess;
}

void check_static(const Worker& worker) {
  const Block& block = *worker.blocks[0];
  const size_t bytes = worker.statics.bytes(), limit = device_model().shared_per_block_optin;
  if (bytes > kMaxStatic) {
    throw std::runtime_error("sim: a kernel may have 49152 bytes of static shared memory; block " +
                             to_string(block.index) + " uses " + std::to_string(bytes));
  }
  if (bytes + block.arena.bytes() > limit) {
    throw std::runtime_error("sim: a block may have " + std::to_string(limit) +
                             " bytes of shared memory on this device; block " +
                             to_string(block.index) + " uses " + std::to_string(bytes) +
                             " static and " + std::to_string(block.arena.bytes()) + " dynamic");
  }
}

void run_grid(const KernelCall& call) {
  Worker& worker = this_worker();
  if (worker.fiber != nullptr) throw std::logic_error("sim: a kernel cannot launch a kernel");
  worker.prepare(call);
  const FaultGuard guard(worker);
  const TraceLaunch trace(worker);
  // What is resident together runs together, one after another of such.
  const uint64_t blocks = uint64_t{call.grid.x} * call.grid.y * call.grid.z / worker.resident;
  std::vector<uint64_t> shuffled;
  if (worker.schedule.order == Order::kRandom) {
    shuffled.resize(blocks);
    for (uint64_t i = 0; i < blocks; ++i) shuffled[i] = i;
    for (uint64_t i = blocks; i > 1; --i) {
      std::swap(shuffled[i - 1], shuffled[worker.random.below(i)]);
    }
  }
  auto checked = std::chrono::steady_clock::now();
  for (uint64_t i = 0; i < blocks; ++i) {
    if (interrupt_check != nullptr && std::chrono::steady_clock::now() - checked > kPatience) {
      interrupt_check();
      checked = std::chrono::steady_clock::now();
    }
    uint64_t which = i;
    if (worker.schedule.order == Order::kReverse) which = blocks - 1 - i;
    if (!shuffled.empty()) which = shuffled[i];
    worker.run_blocks(which * worker.resident);
    if (i == 0) check_static(worker);
  }
}

// What was written behind buffers: the first one's text. None is reported twice.
std::string take_damage() {
  std::string first = memory().damage();
  if (!first.empty()) {
    while (!memory().damage().empty()) {
    }
  }
  return first;
}

}  // namespace

void launch_call(KernelCall call, cudaStream_t stream) {
  if (const cudaError_t error = check_configuration(call); error != cudaSuccess) {
    set_error(error);
    return;
  }
  submit(stream, [call = std::move(call)] {
    try {
      run_grid(call);
    } catch (...) {
      take_damage();  // not left for the next launch
      throw;
    }
    const std::string damage = take_damage();
    if (!damage.empty()) {
      throw std::runtime_error("sim: out of bounds: " + damage +
                               ", by some thread of the launch (TILEGRAD_SIM_GUARDS=exact names "
                               "the thread and the line)");
    }
    return cudaSuccess;
  });
}

void set_interrupt_check(void (*check)()) { interrupt_check = check; }

void grid_dependency_wait() {
  running_worker("grid_dependency_wait").current->waited_for_grid = true;
}

void* dynamic_shared_memory() {
  return running_worker("dynamic_shared_memory").acting_block().arena.data();
}

size_t dynamic_shared_bytes() {
  return running_worker("dynamic_shared_bytes").acting_block().arena.bytes();
}

bool is_shared(const void* address) {
  const Worker& worker = running_worker("is_shared");
  return worker.acting_block().arena.contains(address) || worker.statics.contains(address);
}

}  // namespace tilegrad::simulator
