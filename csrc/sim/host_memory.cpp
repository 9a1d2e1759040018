// SPDX-License-Identifier: MIT
// CUDA's host API: memory. Ranges of device memory are checked against the registry of buffers.
#include <cstdlib>
#include <cstring>
#include <new>

#include "device.hpp"
#include "memory.hpp"

using tilegrad::simulator::Buffer;
using tilegrad::simulator::forbid_in_capture;
using tilegrad::simulator::memory;
using tilegrad::simulator::set_error;
using tilegrad::simulator::submit;

namespace {

// A range that begins in a device buffer must end in it.
bool fits(const void* p, size_t bytes) {
  Buffer buffer;
  if (!memory().find(p, &buffer)) return true;
  const size_t offset = reinterpret_cast<uintptr_t>(p) - buffer.address;
  return bytes <= buffer.bytes - offset;
}

bool is_device(const void* p) {
  Buffer buffer;
  return memory().find(p, &buffer);
}

cudaError_t check_copy(const void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (bytes == 0) return cudaSuccess;
  if (to == nullptr || from == nullptr) return cudaErrorInvalidValue;
  if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) {
    return cudaErrorInvalidMemcpyDirection;
  }
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (kind != cudaMemcpyDefault && (to_device != is_device(to) || from_device != is_device(from))) {
    return cudaErrorInvalidValue;
  }
  return fits(to, bytes) && fits(from, bytes) ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace

cudaError_t cudaMalloc(void** p, size_t bytes) {
  if (p == nullptr) return set_error(cudaErrorInvalidValue);
  if (const cudaError_t error = forbid_in_capture(); error != cudaSuccess) return set_error(error);
  *p = nullptr;
  if (bytes == 0) return cudaSuccess;
  *p = memory().allocate(bytes);
  return *p == nullptr ? set_error(cudaErrorMemoryAllocation) : cudaSuccess;
}

cudaError_t cudaFree(void* p) {
  if (const cudaError_t error = forbid_in_capture(); error != cudaSuccess) return set_error(error);
  if (p == nullptr) return cudaSuccess;
  return memory().release(p) ? cudaSuccess : set_error(cudaErrorInvalidValue);
}

cudaError_t cudaMallocAsync(void** p, size_t bytes, cudaStream_t) { return cudaMalloc(p, bytes); }
cudaError_t cudaFreeAsync(void* p, cudaStream_t) { return cudaFree(p); }

cudaError_t cudaMallocHost(void** p, size_t bytes) {
  if (p == nullptr) return set_error(cudaErrorInvalidValue);
  if (const cudaError_t error = forbid_in_capture(); error != cudaSuccess) return set_error(error);
  *p = bytes == 0 ? nullptr : ::operator new(bytes, std::align_val_t{256}, std::nothrow);
  return bytes != 0 && *p == nullptr ? set_error(cudaErrorMemoryAllocation) : cudaSuccess;
}
cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned) { return cudaMallocHost(p, bytes); }
cudaError_t cudaFreeHost(void* p) {
  ::operator delete(p, std::align_val_t{256});
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  *total_bytes = memory().limit();
  const size_t used = memory().in_use();
  *free_bytes = used < *total_bytes ? *total_bytes - used : 0;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (const cudaError_t error = check_copy(to, from, bytes, kind); error != cudaSuccess) {
    return set_error(error);
  }
  return submit(stream, [=] {
    if (bytes != 0) std::memmove(to, from, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (const cudaError_t error = forbid_in_capture(); error != cudaSuccess) return set_error(error);
  return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}

cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
  if (bytes != 0 && (!is_device(p) || !fits(p, bytes))) return set_error(cudaErrorInvalidValue);
  return submit(stream, [=] {
    if (bytes != 0) std::memset(p, value, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaMemset(void* p, int value, size_t bytes) {
  if (const cudaError_t error = forbid_in_capture(); error != cudaSuccess) return set_error(error);
  return cudaMemsetAsync(p, value, bytes, nullptr);
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* p) {
  *attributes = {};
  if (is_device(p)) {
    attributes->type = cudaMemoryTypeDevice;
    attributes->devicePointer = const_cast<void*>(p);
  } else {
    attributes->type = cudaMemoryTypeUnregistered;
    attributes->device = -1;
    attributes->hostPointer = const_cast<void*>(p);
  }
  return cudaSuccess;
}
