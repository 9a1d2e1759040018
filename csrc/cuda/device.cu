// SPDX-License-Identifier: MIT
#include "device.hpp"

#include <array>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "../check.hpp"
#include "architecture.hpp"
#include "synchronous.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kMaxDevices = 64;
constexpr size_t kDefaultSharedBytes = 48 * 1024;

// The dynamic shared memory that the driver was told to allow, by kernel and device. It is asked
// only when a launch wants more: the call costs as much as the launch.
class AllowedBytes {
 public:
  bool cover(const void* kernel, int device, size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = bytes_.find({kernel, device});
    return found != bytes_.end() && found->second >= bytes;
  }
  void set(const void* kernel, int device, size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    bytes_[{kernel, device}] = bytes;
  }

 private:
  std::mutex mutex_;
  std::map<std::pair<const void*, int>, size_t> bytes_;
};

thread_local bool overlap = false;

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  CUDA_CHECK(cudaDeviceGetAttribute(&value, which, device));
  return value;
}

// A program of the tests has no list: it was compiled for the device that it runs on.
int code_capability(int device) {
#ifdef TILEGRAD_CUDA_ARCHITECTURES
  return code_for(TILEGRAD_CUDA_ARCHITECTURES, device_capability(device));
#else
  return device_capability(device);
#endif
}

}  // namespace

int device_capability(int device) {
  return 10 * attribute(cudaDevAttrComputeCapabilityMajor, device) +
         attribute(cudaDevAttrComputeCapabilityMinor, device);
}

bool synchronous_launches() {
  static const bool value = [] {
    const char* text = std::getenv("TILEGRAD_SYNC");
    return text != nullptr && std::string(text) != "0" && *text != '\0';
  }();
  return value;
}

void check_cuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // an error of one call is not left for the next to find
  throw std::runtime_error(format("cuda: {} failed; got {}: {}", what, cudaGetErrorName(error),
                                  cudaGetErrorString(error)));
}

const DeviceInfo& device_info() {
  static std::array<DeviceInfo, kMaxDevices> known;
  [[maybe_unused]] static std::array<std::once_flag, kMaxDevices> asked;
  int device = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  check(device < kMaxDevices, "cuda: device numbers must be below {}; got {}", kMaxDevices, device);
  const auto i = static_cast<size_t>(device);
  const auto ask = [&] {
    known[i] = {device, code_capability(device), attribute(cudaDevAttrMultiProcessorCount, device),
                static_cast<size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device))};
  };
#ifdef TILEGRAD_SIM
  ask();
#else
  std::call_once(asked[i], ask);
#endif
  return known[i];
}

void check_launch(size_t dynamic_bytes, const void* kernel) {
  if (dynamic_bytes <= kDefaultSharedBytes) return;
  static AllowedBytes allowed;
  const DeviceInfo& device = device_info();
  if (dynamic_bytes > device.shared_bytes) {
    throw std::runtime_error(
        format("cuda: a block may have {} bytes of dynamic shared memory on this device; the "
               "kernel asks for {}",
               device.shared_bytes, dynamic_bytes));
  }
  if (allowed.cover(kernel, device.index, dynamic_bytes)) return;
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(dynamic_bytes)));
  allowed.set(kernel, device.index, dynamic_bytes);
}

OverlapScope::OverlapScope() { overlap = true; }
OverlapScope::~OverlapScope() { overlap = false; }
bool launches_overlap() { return overlap; }

unsigned resident_blocks(const void* kernel, unsigned threads, size_t dynamic_bytes) {
  check_launch(dynamic_bytes, kernel);
  int blocks = 0;
  CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
      &blocks, kernel, static_cast<int>(threads), dynamic_bytes));
  return static_cast<unsigned>(blocks * device_info().multiprocessors);
}

void check_residency(const void* kernel, int64_t blocks, unsigned threads, size_t dynamic_bytes,
                     unsigned blocks_x, unsigned cluster, bool cooperative) {
  constexpr unsigned kMostCluster = 8;
  if (cluster == 0 || cluster > kMostCluster || blocks_x % cluster != 0 ||
      (cluster > 1 && device_info().compute_capability < 90)) {
    throw std::runtime_error(format(
        "cuda: a cluster has 1 to {} blocks, on compute capability 9.0, and divides the grid; "
        "got {} of {} blocks on {}",
        kMostCluster, cluster, blocks_x, device_info().compute_capability));
  }
  if (!cooperative) return;
  const unsigned most = resident_blocks(kernel, threads, dynamic_bytes);
  if (blocks > int64_t{most}) {
    throw std::runtime_error(format(
        "cuda: {} blocks of {} threads and {} bytes of dynamic shared memory fit this device "
        "at once; a cooperative grid has {}",
        most, threads, dynamic_bytes, blocks));
  }
}

void after_launch(cudaStream_t stream) {
  CUDA_CHECK(cudaGetLastError());
  if (synchronous_launches()) CUDA_CHECK(cudaStreamSynchronize(stream));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
