// SPDX-License-Identifier: MIT
// CUDA's host API: the device, errors and function attributes.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>
#include <unordered_map>

#include "device.hpp"
#include "memory.hpp"
#include "registers.hpp"

namespace tilegrad::simulator {
namespace {

constexpr size_t kKilobyte = 1024, kDefaultDynamic = 48 * kKilobyte;
constexpr int kMultiprocessors = 4;          // few, so that grids stay small
constexpr size_t kReserved = 1 * kKilobyte;  // of shared memory, for the system, a block
constexpr int kVersion = 13000;

constexpr DeviceModel kModels[] = {
    {75, 48 * kKilobyte, 64 * kKilobyte, 64 * kKilobyte, 1024, 16},
    {80, 48 * kKilobyte, 163 * kKilobyte, 164 * kKilobyte, 2048, 32},
    {90, 48 * kKilobyte, 227 * kKilobyte, 228 * kKilobyte, 2048, 32},
};

std::mutex attributes_mutex;
std::unordered_map<const void*, size_t>& dynamic_attributes() {
  static auto* made = new std::unordered_map<const void*, size_t>();
  return *made;
}

struct ErrorText {
  cudaError_t error;
  const char *name, *text;
};
constexpr ErrorText kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorInvalidDevicePointer, "cudaErrorInvalidDevicePointer", "invalid device pointer"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection",
     "invalid copy direction for memcpy"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress",
     "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources",
     "too many resources requested for launch"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorCooperativeLaunchTooLarge, "cudaErrorCooperativeLaunchTooLarge",
     "too many blocks in cooperative launch"},
    {cudaErrorInvalidClusterSize, "cudaErrorInvalidClusterSize", "invalid cluster size"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureMerge, "cudaErrorStreamCaptureMerge",
     "operation would result in a merge of separate capture sequences"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched",
     "capture was not ended in the same stream as it began"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined",
     "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent",
     "operation not permitted on an event last recorded in a capturing stream"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

}  // namespace

namespace {

const DeviceModel& model_named(const std::string& wanted, const char* what) {
  for (const DeviceModel& each : kModels) {
    if (std::to_string(each.compute_capability) == wanted) return each;
  }
  throw std::invalid_argument(std::string("sim: ") + what + " must be 75, 80 or 90; got '" +
                              wanted + "'");
}

std::atomic<const DeviceModel*> chosen_model{nullptr};

}  // namespace

const DeviceModel& device_model() {
  const DeviceModel* model = chosen_model;
  if (model == nullptr) {
    const char* text = std::getenv("TILEGRAD_SIM_CC");
    model = &model_named(text == nullptr || *text == '\0' ? "90" : text, "TILEGRAD_SIM_CC");
    chosen_model = model;
  }
  return *model;
}

void set_compute_capability(int compute_capability) {
  chosen_model = &model_named(std::to_string(compute_capability), "the compute capability");
}

size_t allowed_dynamic_bytes(const void* kernel) {
  const std::lock_guard<std::mutex> lock(attributes_mutex);
  const auto at = dynamic_attributes().find(kernel);
  return at == dynamic_attributes().end() ? kDefaultDynamic : std::max(kDefaultDynamic, at->second);
}

unsigned multiprocessors() { return kMultiprocessors; }

unsigned resident_blocks(unsigned threads, size_t dynamic_bytes) {
  const DeviceModel& model = device_model();
  if (threads == 0 || dynamic_bytes > model.shared_per_block_optin) return 0;
  const unsigned warps = (threads + 31) / 32;
  const size_t reserved = model.compute_capability == 75 ? 0 : kReserved;
  const size_t bytes = std::max<size_t>(1, dynamic_bytes + reserved);
  return static_cast<unsigned>(std::min<size_t>({model.blocks_per_multiprocessor,
                                                 model.threads_per_multiprocessor / (warps * 32),
                                                 model.shared_per_multiprocessor / bytes}));
}

cudaError_t set_error(cudaError_t error) {
  if (error != cudaSuccess) registers.last_error = error;
  return error;
}

}  // namespace tilegrad::simulator

using tilegrad::simulator::device_model;
using tilegrad::simulator::registers;
using tilegrad::simulator::set_error;

cudaError_t cudaGetDeviceCount(int* count) {
  device_model();
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = registers.device;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device != 0) return set_error(cudaErrorInvalidDevice);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return set_error(cudaErrorInvalidDevice);
  const auto& model = device_model();
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
      *value = 1024;
      return cudaSuccess;
    case cudaDevAttrMaxGridDimX:
      *value = 0x7fffffff;
      return cudaSuccess;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
      *value = 65535;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = static_cast<int>(model.shared_per_block);
      return cudaSuccess;
    case cudaDevAttrWarpSize:
      *value = 32;
      return cudaSuccess;
    case cudaDevAttrMaxRegistersPerBlock:
      *value = 65536;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = tilegrad::simulator::kMultiprocessors;
      return cudaSuccess;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = static_cast<int>(model.threads_per_multiprocessor);
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = model.compute_capability / 10;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = model.compute_capability % 10;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = static_cast<int>(model.shared_per_multiprocessor);
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(model.shared_per_block_optin);
      return cudaSuccess;
    case cudaDevAttrClockRate:
    case cudaDevAttrMemoryClockRate:
    case cudaDevAttrGlobalMemoryBusWidth:
    case cudaDevAttrL2CacheSize:
    case cudaDevAttrMemoryPoolsSupported:
      *value = 0;  // speed is not simulated
      return cudaSuccess;
  }
  return set_error(cudaErrorInvalidValue);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return set_error(cudaErrorInvalidDevice);
  const auto& model = device_model();
  *properties = {};
  std::strncpy(properties->name, "tilegrad simulator", sizeof(properties->name) - 1);
  properties->totalGlobalMem = tilegrad::simulator::memory().limit();
  properties->sharedMemPerBlock = model.shared_per_block;
  properties->sharedMemPerBlockOptin = model.shared_per_block_optin;
  properties->major = model.compute_capability / 10;
  properties->minor = model.compute_capability % 10;
  properties->multiProcessorCount = tilegrad::simulator::kMultiprocessors;
  properties->maxThreadsPerBlock = 1024;
  properties->warpSize = 32;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = tilegrad::simulator::kVersion;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) { return cudaRuntimeGetVersion(version); }

cudaError_t cudaGetLastError() {
  const auto error = static_cast<cudaError_t>(registers.last_error);
  registers.last_error = cudaSuccess;
  return error;
}
cudaError_t cudaPeekAtLastError() { return static_cast<cudaError_t>(registers.last_error); }

const char* cudaGetErrorName(cudaError_t error) {
  for (const auto& each : tilegrad::simulator::kErrors) {
    if (each.error == error) return each.name;
  }
  return "unrecognized error code";
}
const char* cudaGetErrorString(cudaError_t error) {
  for (const auto& each : tilegrad::simulator::kErrors) {
    if (each.error == error) return each.text;
  }
  return "unrecognized error code";
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (kernel == nullptr) return set_error(cudaErrorInvalidDeviceFunction);
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<size_t>(value) > device_model().shared_per_block_optin) {
    return set_error(cudaErrorInvalidValue);
  }
  const std::lock_guard<std::mutex> lock(tilegrad::simulator::attributes_mutex);
  tilegrad::simulator::dynamic_attributes()[kernel] = static_cast<size_t>(value);
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* kernel,
                                                          int threads, size_t dynamic_bytes) {
  if (kernel == nullptr) return set_error(cudaErrorInvalidDeviceFunction);
  if (blocks == nullptr || threads < 1) return set_error(cudaErrorInvalidValue);
  *blocks = static_cast<int>(
      tilegrad::simulator::resident_blocks(static_cast<unsigned>(threads), dynamic_bytes));
  return cudaSuccess;
}
