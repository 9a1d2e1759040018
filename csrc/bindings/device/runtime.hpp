// SPDX-License-Identifier: MIT
// Devices, streams and memory as the bindings use them. The CUDA runtime is called at the first
// use of a device, never at import.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "../../cuda/architecture.hpp"
#include "../../cuda/device.hpp"
#include "traits.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

std::string place_name(int place);  // sim, cuda:0

// RuntimeError after a fork: the driver's state does not survive it.
void check_process();
bool process_is_usable();  // for destructors, which then leave the driver alone
// The number of devices; 0, with the reason, where there is no driver or none can be used.
int device_count(std::string* reason = nullptr);
// Empty if a build has code for a device; else the error: device, list, what to rebuild with.
std::string missing_code(std::string_view built, int compute_capability, std::string_view device);
// Makes a place's device the current one of this thread; RuntimeError if it cannot be used.
void enter(int place);

// The stream on which this thread puts work for a device: set_stream's, else one that all threads
// share and that does not wait for the legacy default stream.
cudaStream_t current_stream(int place);
void set_stream(int place, cudaStream_t stream);  // null: the shared one
void synchronize(int place);

// A stream of one's own. Streams are kept for the next taker and never destroyed: blocks of memory
// and workspaces remember theirs, and what one taker left on it is done before the next one's work.
cudaStream_t take_stream(int place);
void give_stream_back(int place, cudaStream_t stream) noexcept;

// Memory that is used on one stream after the other without its user's knowledge.
class StreamOrder {
 public:
  // What is put on `stream` from now on comes after all that is on the stream named before: also
  // after copies of a result that were put there behind the work itself, which is why nothing is
  // recorded before a change. Where one of the two is being captured into a graph of the caller's,
  // the order of graph and streams is the caller's to see to.
  void enter(int place, cudaStream_t stream);

 private:
  cudaStream_t last_ = nullptr;
};

// Memory in the order of a stream: a block given back is handed out again on its own stream without
// waiting for the device. Sizes are rounded up by at most an eighth.
class Allocator {
 public:
  static Allocator& instance();

  void* take(size_t bytes, int place, cudaStream_t stream);
  // `others`: further streams whose work may still use the block.
  void give(void* p, size_t bytes, int place, cudaStream_t stream,
            const std::vector<cudaStream_t>& others) noexcept;
  size_t release();  // gives what nobody uses back to the device; the bytes
  size_t in_use();

 private:
  using Key = std::tuple<int, cudaStream_t, size_t>;

  static size_t rounded(size_t bytes);
  size_t release_locked();

  std::mutex mutex_;
  std::map<Key, std::vector<void*>> free_;
  size_t in_use_ = 0;
};

// Page-locked host memory for copies between NumPy's arrays and a device.
class Staging {
 public:
  Staging() = default;
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // Host to device, ordered on the stream; the source may change once this returns.
  void upload(void* out, const void* from, size_t bytes, cudaStream_t stream);
  // Device to host; waits for the stream.
  void download(void* out, const void* from, size_t bytes, cudaStream_t stream);

 private:
  struct Half {
    void* data = nullptr;
    cudaEvent_t done = nullptr;
    bool busy = false;
  };
  Half& next();

  static constexpr size_t kBytes = size_t{4} << 20;
  Half halves_[2];
  int turn_ = 0;
};

// The calling thread's, of the current device.
Staging& staging(int place);

}  // namespace tilegrad::TILEGRAD_BACKEND
