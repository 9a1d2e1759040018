// SPDX-License-Identifier: MIT
// Copies between NumPy's arrays and a device, through two page-locked buffers in turn.
#include <algorithm>
#include <cstring>

#include "runtime.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

Staging::~Staging() {
  if (!process_is_usable()) return;
  for (Half& half : halves_) {
    if (half.data != nullptr) cudaFreeHost(half.data);
    if (half.done != nullptr) cudaEventDestroy(half.done);
  }
}

Staging::Half& Staging::next() {
  Half& half = halves_[turn_];
  turn_ = 1 - turn_;
  if (half.data == nullptr) {
    CUDA_CHECK(cudaMallocHost(&half.data, kBytes));
    CUDA_CHECK(cudaEventCreateWithFlags(&half.done, cudaEventDisableTiming));
  }
  if (half.busy) CUDA_CHECK(cudaEventSynchronize(half.done));
  half.busy = false;
  return half;
}

void Staging::upload(void* out, const void* from, size_t bytes, cudaStream_t stream) {
  for (size_t at = 0; at < bytes; at += kBytes) {
    const size_t part = std::min(kBytes, bytes - at);
    Half& half = next();  // one half is filled while the other one travels
    std::memcpy(half.data, static_cast<const char*>(from) + at, part);
    CUDA_CHECK(cudaMemcpyAsync(static_cast<char*>(out) + at, half.data, part,
                               cudaMemcpyHostToDevice, stream));
    CUDA_CHECK(cudaEventRecord(half.done, stream));
    half.busy = true;
  }
}

void Staging::download(void* out, const void* from, size_t bytes, cudaStream_t stream) {
  if (bytes == 0) {
    CUDA_CHECK(cudaStreamSynchronize(stream));
    return;
  }
  struct Part {
    Half* half;
    size_t at, bytes;
  };
  Part waiting{nullptr, 0, 0};
  const auto finish = [&](const Part& part) {
    if (part.half == nullptr) return;
    CUDA_CHECK(cudaEventSynchronize(part.half->done));
    part.half->busy = false;
    std::memcpy(static_cast<char*>(out) + part.at, part.half->data, part.bytes);
  };
  for (size_t at = 0; at < bytes; at += kBytes) {
    const size_t part = std::min(kBytes, bytes - at);
    Half& half = next();
    CUDA_CHECK(cudaMemcpyAsync(half.data, static_cast<const char*>(from) + at, part,
                               cudaMemcpyDeviceToHost, stream));
    CUDA_CHECK(cudaEventRecord(half.done, stream));
    half.busy = true;
    finish(waiting);
    waiting = {&half, at, part};
  }
  finish(waiting);
}

}  // namespace tilegrad::TILEGRAD_BACKEND
