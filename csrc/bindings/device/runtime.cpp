// SPDX-License-Identifier: MIT
#include "runtime.hpp"

#include <pthread.h>

#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <utility>

#include "../../check.hpp"

#if !defined(TILEGRAD_SIM) && __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define TILEGRAD_NVTX 1
#endif

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kMaxDevices = 64;

std::atomic<bool> forked{false};

// Fork is harmless to the simulator, whose devices are ordinary memory.
void watch_forks() {
#ifndef TILEGRAD_SIM
  static const int once = pthread_atfork(nullptr, nullptr, [] { forked = true; });
  (void)once;
#endif
}

#ifndef TILEGRAD_SIM
void check_code(int device) {
  cudaDeviceProp properties;
  CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
  const std::string text =
      missing_code(TILEGRAD_CUDA_ARCHITECTURES, device_capability(device), properties.name);
  if (!text.empty()) throw std::runtime_error(text);
}
#endif

cudaStream_t shared_stream(int place) {
  static std::array<std::once_flag, kMaxDevices> made;
  static std::array<cudaStream_t, kMaxDevices> streams{};
  const auto i = static_cast<size_t>(place - kFirstPlace);
  std::call_once(
      made[i], [&] { CUDA_CHECK(cudaStreamCreateWithFlags(&streams[i], cudaStreamNonBlocking)); });
  return streams[i];
}

// One context, with its workspace, for each stream that this thread works on.
struct StreamContext {
  int place;
  cudaStream_t stream;
  std::unique_ptr<Workspace> workspace = std::make_unique<Workspace>();
  Context context{};
};

struct ThreadState {
  CallContext* call = nullptr;
  std::array<cudaStream_t, kMaxDevices> chosen{};
  std::vector<std::unique_ptr<StreamContext>> contexts;
  std::map<int, Staging> staging;

  Context& context(int place, cudaStream_t stream) {
    for (auto& known : contexts) {
      if (known->place == place && known->stream == stream) return known->context;
    }
    auto& made = contexts.emplace_back(std::make_unique<StreamContext>());
    made->place = place;
    made->stream = stream;
    made->context = {.stream = stream, .workspace = made->workspace.get()};
    return made->context;
  }
};

ThreadState& thread_state() {
  thread_local ThreadState state;
  return state;
}

// Ranges of NVTX: a jump through a null pointer's test unless a profiler has put itself there.
#ifdef TILEGRAD_NVTX
void begin_range(const char* name) { nvtxRangePushA(name); }
void end_range() { nvtxRangePop(); }
#else
void begin_range(const char*) {}
void end_range() {}
#endif

// Lets a stream wait for what is on another one now; false if it cannot be said, as at exit.
bool wait_for(int place, cudaStream_t stream, cudaStream_t other) noexcept try {
  int before = 0;
  cudaEvent_t event = nullptr;
  const bool entered =
      cudaGetDevice(&before) == cudaSuccess && cudaSetDevice(place - kFirstPlace) == cudaSuccess;
  const bool made =
      entered && cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess;
  const bool done = made && cudaEventRecord(event, other) == cudaSuccess &&
                    cudaStreamWaitEvent(stream, event, 0) == cudaSuccess;
  if (made) cudaEventDestroy(event);
  if (entered) cudaSetDevice(before);
  if (!done) cudaGetLastError();
  return done;
} catch (const std::bad_alloc&) {  // in the simulator an event takes memory
  return false;
}

bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  if (cudaStreamIsCapturing(stream, &status) == cudaSuccess) {
    return status != cudaStreamCaptureStatusNone;
  }
  cudaGetLastError();  // a stream of somebody else's that is no more
  return false;
}

// What allocate_scratch must know to give a block back.
struct ScratchHeader {
  size_t bytes;
  int place;
  cudaStream_t stream;
};
std::mutex scratch_mutex;
std::map<void*, ScratchHeader>& scratch_blocks() {
  static auto* blocks = new std::map<void*, ScratchHeader>;  // outlives thread-local workspaces
  return *blocks;
}

}  // namespace

std::string missing_code(std::string_view built, int compute_capability, std::string_view device) {
  if (code_for(built, compute_capability) != 0) return {};
  const int cc = compute_capability;
  return format(
      "cuda: this build has no code for {} (compute capability {}.{}); it has {}. Rebuild with: "
      "pip install . --config-settings=cmake.define.TILEGRAD_CUDA_ARCHITECTURES={}{}-real",
      device, cc / 10, cc % 10, built, cc, cc == 90 ? "a" : "");
}

std::string place_name(int place) {
#ifdef TILEGRAD_SIM
  (void)place;
  return "sim";
#else
  return format("cuda:{}", place);
#endif
}

void check_process() {
  if (forked) [[unlikely]] {
    throw std::runtime_error(
        "cuda: this process was forked after CUDA was used, which the driver does not survive; "
        "start processes with the 'spawn' or 'forkserver' method");
  }
}

bool process_is_usable() { return !forked; }

int device_count(std::string* reason) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return count < kMaxDevices ? count : kMaxDevices;
  cudaGetLastError();
  if (reason != nullptr) {
    *reason = error == cudaSuccess ? "there is no CUDA device" : cudaGetErrorString(error);
  }
  return 0;  // on an error the count is not to be trusted
}

void enter(int place) {
  check_process();
  watch_forks();
  CUDA_CHECK(cudaSetDevice(place - kFirstPlace));
#ifndef TILEGRAD_SIM
  static std::array<std::once_flag, kMaxDevices> checked;
  std::call_once(checked[static_cast<size_t>(place)], check_code, place);
#endif
}

cudaStream_t current_stream(int place) {
  const cudaStream_t chosen = thread_state().chosen[static_cast<size_t>(place - kFirstPlace)];
  return chosen != nullptr ? chosen : shared_stream(place);
}

void set_stream(int place, cudaStream_t stream) {
  thread_state().chosen[static_cast<size_t>(place - kFirstPlace)] = stream;
}

void synchronize(int place) {
  enter(place);
  CUDA_CHECK(cudaDeviceSynchronize());
}

void StreamOrder::enter(int place, cudaStream_t stream) {
  if (stream == last_) return;
  if (last_ == nullptr) {
    last_ = stream;
    return;
  }
  // A graph that somebody captures may not wait for what lies outside of it, nor that for the
  // graph.
  if (is_capturing(stream) || is_capturing(last_)) return;
  const cudaStream_t other = std::exchange(last_, stream);
  if (!wait_for(place, stream, other)) CUDA_CHECK(cudaDeviceSynchronize());  // no event to be had
}

namespace {
std::mutex idle_streams_mutex;
std::map<int, std::vector<cudaStream_t>>& idle_streams() {
  static auto* streams = new std::map<int, std::vector<cudaStream_t>>;
  return *streams;
}
}  // namespace

cudaStream_t take_stream(int place) {
  enter(place);
  {
    std::lock_guard lock(idle_streams_mutex);
    auto& idle = idle_streams()[place];
    if (!idle.empty()) {
      const cudaStream_t stream = idle.back();
      idle.pop_back();
      return stream;
    }
  }
  cudaStream_t stream = nullptr;
  CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

void give_stream_back(int place, cudaStream_t stream) noexcept {
  if (stream == nullptr) return;
  try {
    std::lock_guard lock(idle_streams_mutex);
    idle_streams()[place].push_back(stream);
  } catch (...) {  // no room for the entry: the stream is lost, which harms nothing
  }
}

// ---- the context of a call ----------------------------------------------------------------------

CallContext::CallContext() : outer_(thread_state().call) { thread_state().call = this; }

CallContext::~CallContext() {
  scope_.reset();
  if (named_) end_range();
  thread_state().call = outer_;
}

void CallContext::named(const char* op) {
  if (named_) return;
  named_ = true;
  begin_range(op);
}

CallContext* CallContext::current() { return thread_state().call; }

void CallContext::at(int place) {
  enter(place);
  scope_.reset();
  place_ = place;
  context_ = &thread_state().context(place, current_stream(place));
  scope_.emplace(*context_);
}

Context& CallContext::operator*() {
  if (context_ == nullptr) at(kFirstPlace);
  return *context_;
}

// ---- memory -------------------------------------------------------------------------------------

void* allocate_scratch(size_t bytes, size_t) {
  const CallContext* call = CallContext::current();
  const int place = call == nullptr ? kFirstPlace : call->place();
  const cudaStream_t stream = current_stream(place);
  void* p = Allocator::instance().take(bytes, place, stream);
  try {
    std::lock_guard lock(scratch_mutex);
    scratch_blocks()[p] = {bytes, place, stream};
  } catch (...) {
    Allocator::instance().give(p, bytes, place, stream, {});
    throw;
  }
  return p;
}

void release_scratch(void* p, size_t) noexcept {
  ScratchHeader block;
  {
    std::lock_guard lock(scratch_mutex);
    auto found = scratch_blocks().find(p);
    block = found->second;
    scratch_blocks().erase(found);
  }
  Allocator::instance().give(p, block.bytes, block.place, block.stream, {});
}

Allocator& Allocator::instance() {
  static auto* allocator = new Allocator;  // arrays may outlive static destructors
  return *allocator;
}

size_t Allocator::rounded(size_t bytes) {
#ifdef TILEGRAD_SIM
  return bytes == 0 ? 1 : bytes;  // exact, so that the guards are
#else
  size_t step = 512;
  while (step * 16 <= bytes) step *= 2;
  return bytes == 0 ? step : (bytes + step - 1) / step * step;
#endif
}

void* Allocator::take(size_t bytes, int place, cudaStream_t stream) {
  const size_t size = rounded(bytes);
  std::lock_guard lock(mutex_);
  void* p = nullptr;
  if (auto found = free_.find({place, stream, size});
      found != free_.end() && !found->second.empty()) {
    p = found->second.back();
    found->second.pop_back();
    if (found->second.empty()) free_.erase(found);
  } else {
    cudaError_t error = cudaMalloc(&p, size);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      release_locked();
      error = cudaMalloc(&p, size);
    }
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      size_t free = 0, total = 0;
      cudaMemGetInfo(&free, &total);
      throw std::runtime_error(format(
          "{}: out of device memory; asked for {} bytes, {} of {} are free, {} are in arrays and "
          "workspace (delete arrays, or use a smaller batch)",
          kBackendName, size, free, total, in_use_));
    }
    check_cuda(error, "cudaMalloc");
  }
  in_use_ += size;
#ifdef TILEGRAD_SIM
  std::memset(p, 0xFF, size);  // NaN: what is read before it is written shows
#endif
  return p;
}

void Allocator::give(void* p, size_t bytes, int place, cudaStream_t stream,
                     const std::vector<cudaStream_t>& others) noexcept {
  if (forked) return;  // the parent's memory
  const size_t size = rounded(bytes);
  bool ordered = true;
  for (const cudaStream_t other : others) ordered = ordered && wait_for(place, stream, other);
  std::lock_guard lock(mutex_);
  in_use_ -= size;
  try {
    if (ordered) return free_[{place, stream, size}].push_back(p);
  } catch (...) {  // no room for the entry
  }
  try {
    cudaFree(p);                     // waits for the device
  } catch (const std::exception&) {  // the simulator's complaint about what lies behind the buffer
  }
}

size_t Allocator::in_use() {
  std::lock_guard lock(mutex_);
  return in_use_;
}

size_t Allocator::release_locked() {
  size_t bytes = 0;
  for (auto& [key, blocks] : free_) {
    bytes += std::get<2>(key) * blocks.size();
    for (void* p : blocks) cudaFree(p);  // waits for the device
  }
  free_.clear();
  return bytes;
}

size_t Allocator::release() {
  for (auto& known : thread_state().contexts) known->workspace->release();
  std::lock_guard lock(mutex_);
  return release_locked();
}

Staging& staging(int place) { return thread_state().staging[place]; }

}  // namespace tilegrad::TILEGRAD_BACKEND
