// SPDX-License-Identifier: MIT
// CUDA's host API: streams, events, capture and graphs. A stream does its work at once, so all have
// always finished; during a capture work is recorded instead, in the order of the calls, which is
// an order that the dependencies between the captured streams allow. Who waits for whom is counted.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "device.hpp"

using Work = std::function<cudaError_t()>;

// A capture in progress.
struct SimCapture {
  cudaStream_t origin;
  cudaStreamCaptureMode mode;
  std::thread::id thread;
  std::vector<Work> work;
  std::unordered_set<cudaStream_t> joined;    // streams other than the origin ..
  std::unordered_set<cudaStream_t> unjoined;  // .. with work that the origin does not wait for
  bool valid = true;
};

// How much of each stream's work comes before something.
using Seen = std::unordered_map<cudaStream_t, uint64_t>;

struct SimStream {
  bool non_blocking = false;
  std::shared_ptr<SimCapture> capture;
  uint64_t work = 0;  // done here
  Seen seen;          // of other streams, by waiting for events
};
struct SimEvent {
  bool timing = true;
  bool recorded = false;
  std::chrono::steady_clock::time_point time;
  std::shared_ptr<SimCapture> capture;  // it was last recorded in
  Seen seen;
  cudaStream_t stream = nullptr;
};
struct SimGraph {
  std::vector<Work> work;
};
struct SimGraphExec {
  std::vector<Work> work;
};

namespace {

using tilegrad::simulator::set_error;

std::mutex mutex;  // of all that follows and of what it points to
struct Handles {
  std::unordered_set<cudaStream_t> streams;
  std::unordered_set<cudaEvent_t> events;
  std::unordered_set<SimCapture*> captures;
};
Handles& handles() {
  static auto* made = new Handles();  // handles may be destroyed while the process ends
  return *made;
}

bool is_default(cudaStream_t stream) {
  return stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread;
}
bool known(cudaStream_t stream) { return is_default(stream) || handles().streams.count(stream); }
std::shared_ptr<SimCapture> capture_of(cudaStream_t stream) {
  return is_default(stream) ? nullptr : stream->capture;
}
cudaError_t invalidate(SimCapture& capture, cudaError_t error) {
  capture.valid = false;
  return set_error(error);
}

void end_capture(SimCapture& capture) {
  for (cudaStream_t stream : capture.joined) stream->capture = nullptr;
  capture.origin->capture = nullptr;
  handles().captures.erase(&capture);
}

// For a call that waits for the stream's work.
cudaError_t wait_for(cudaStream_t stream) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (!known(stream)) return set_error(cudaErrorInvalidResourceHandle);
  if (const auto capture = capture_of(stream)) {
    return invalidate(*capture, cudaErrorStreamCaptureUnsupported);
  }
  return cudaSuccess;
}

}  // namespace

namespace tilegrad::simulator {

cudaError_t submit(cudaStream_t stream, std::function<cudaError_t()> work) {
  {
    const std::lock_guard<std::mutex> lock(mutex);
    if (!known(stream)) return set_error(cudaErrorInvalidResourceHandle);
    if (const auto capture = capture_of(stream)) {
      if (!capture->valid) return set_error(cudaErrorStreamCaptureInvalidated);
      if (stream != capture->origin) capture->unjoined.insert(stream);
      capture->work.push_back(std::move(work));
      return cudaSuccess;
    }
    if (!is_default(stream)) ++stream->work;
    if (stream == nullptr || stream == cudaStreamLegacy) {
      for (SimCapture* capture : handles().captures) {
        if (!capture->origin->non_blocking) {
          return invalidate(*capture, cudaErrorStreamCaptureImplicit);
        }
      }
    }
  }
  return set_error(work());
}

uint64_t work_not_awaited(cudaStream_t stream, cudaStream_t other) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto seen = stream->seen.find(other);
  return other->work - (seen == stream->seen.end() ? 0 : seen->second);
}

cudaError_t forbid_in_capture() {
  const std::lock_guard<std::mutex> lock(mutex);
  for (SimCapture* capture : handles().captures) {
    if (capture->mode == cudaStreamCaptureModeRelaxed) continue;
    // Of a thread-local capture other threads need not know.
    const bool own = capture->thread == std::this_thread::get_id();
    if (capture->mode == cudaStreamCaptureModeThreadLocal && !own) continue;
    return invalidate(*capture, cudaErrorStreamCaptureUnsupported);
  }
  return cudaSuccess;
}

}  // namespace tilegrad::simulator

cudaError_t cudaDeviceSynchronize() { return tilegrad::simulator::forbid_in_capture(); }
cudaError_t cudaDeviceReset() { return tilegrad::simulator::forbid_in_capture(); }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  if (stream == nullptr || flags > cudaStreamNonBlocking) return set_error(cudaErrorInvalidValue);
  const std::lock_guard<std::mutex> lock(mutex);
  *stream = new SimStream{flags == cudaStreamNonBlocking, nullptr, 0, {}};
  handles().streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (is_default(stream) || !known(stream)) return set_error(cudaErrorInvalidResourceHandle);
  if (const auto capture = stream->capture) {
    capture->valid = false;
    capture->joined.erase(stream);
    capture->unjoined.erase(stream);
    if (capture->origin == stream) end_capture(*capture);
  }
  handles().streams.erase(stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return wait_for(stream); }
cudaError_t cudaStreamQuery(cudaStream_t stream) { return wait_for(stream); }

// Waiting for an event of a capture draws the stream into it, or joins the event's stream.
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (!known(stream) || !handles().events.count(event)) {
    return set_error(cudaErrorInvalidResourceHandle);
  }
  const auto source = event->capture;
  const auto target = capture_of(stream);
  const bool active = source != nullptr && handles().captures.count(source.get());
  if (!active && !is_default(stream)) {
    for (const auto& [other, work] : event->seen) {
      stream->seen[other] = std::max(stream->seen[other], work);
    }
  }
  if (!active) {
    return target == nullptr || source == nullptr
               ? cudaSuccess
               : invalidate(*target, cudaErrorStreamCaptureIsolation);
  }
  if (target != nullptr && target != source) {
    return invalidate(*target, cudaErrorStreamCaptureMerge);
  }
  if (target == nullptr) {
    if (is_default(stream)) return invalidate(*source, cudaErrorStreamCaptureImplicit);
    stream->capture = source;
    source->joined.insert(stream);
  }
  if (stream == source->origin) source->unjoined.erase(event->stream);
  return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void*), void* data) {
  return tilegrad::simulator::submit(stream, [=] {
    function(data);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (!known(stream)) return set_error(cudaErrorInvalidResourceHandle);
  if (is_default(stream)) return set_error(cudaErrorStreamCaptureUnsupported);
  if (stream->capture != nullptr) return set_error(cudaErrorInvalidValue);
  stream->capture = std::make_shared<SimCapture>();
  stream->capture->origin = stream;
  stream->capture->mode = mode;
  stream->capture->thread = std::this_thread::get_id();
  handles().captures.insert(stream->capture.get());
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (graph != nullptr) *graph = nullptr;
  if (!known(stream)) return set_error(cudaErrorInvalidResourceHandle);
  const auto capture = capture_of(stream);
  if (graph == nullptr || capture == nullptr) return set_error(cudaErrorInvalidValue);
  if (capture->origin != stream) return invalidate(*capture, cudaErrorStreamCaptureUnmatched);
  end_capture(*capture);
  if (!capture->valid) return set_error(cudaErrorStreamCaptureInvalidated);
  if (!capture->unjoined.empty()) return set_error(cudaErrorStreamCaptureUnjoined);
  *graph = new SimGraph{std::move(capture->work)};
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (!known(stream)) return set_error(cudaErrorInvalidResourceHandle);
  const auto capture = capture_of(stream);
  *status = capture == nullptr ? cudaStreamCaptureStatusNone
            : capture->valid   ? cudaStreamCaptureStatusActive
                               : cudaStreamCaptureStatusInvalidated;
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  if (event == nullptr) return set_error(cudaErrorInvalidValue);
  const std::lock_guard<std::mutex> lock(mutex);
  *event = new SimEvent();
  (*event)->timing = (flags & cudaEventDisableTiming) == 0;
  handles().events.insert(*event);
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (!known(stream) || !handles().events.count(event)) {
    return set_error(cudaErrorInvalidResourceHandle);
  }
  event->capture = capture_of(stream);
  event->stream = stream;
  event->seen.clear();
  if (!is_default(stream) && event->capture == nullptr) {
    event->seen = stream->seen;
    event->seen[stream] = stream->work;
  }
  event->recorded = true;
  event->time = std::chrono::steady_clock::now();
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (!handles().events.count(event)) return set_error(cudaErrorInvalidResourceHandle);
  if (event->capture != nullptr && handles().captures.count(event->capture.get())) {
    return invalidate(*event->capture, cudaErrorCapturedEvent);
  }
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) { return cudaEventQuery(event); }

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  const std::lock_guard<std::mutex> lock(mutex);
  for (cudaEvent_t event : {start, end}) {
    if (!handles().events.count(event)) return set_error(cudaErrorInvalidResourceHandle);
    if (!event->timing || !event->recorded) return set_error(cudaErrorInvalidResourceHandle);
  }
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (handles().events.erase(event) == 0) return set_error(cudaErrorInvalidResourceHandle);
  delete event;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long) {
  if (executable == nullptr || graph == nullptr) return set_error(cudaErrorInvalidValue);
  *executable = new SimGraphExec{graph->work};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  if (executable == nullptr) return set_error(cudaErrorInvalidValue);
  return tilegrad::simulator::submit(stream, [executable] {
    for (const Work& work : executable->work) {
      if (const cudaError_t error = work(); error != cudaSuccess) return error;
    }
    return cudaSuccess;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, void* nodes, size_t* count) {
  if (graph == nullptr || nodes != nullptr) return set_error(cudaErrorInvalidValue);
  *count = graph->work.size();
  return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  *mode = cudaStreamCaptureModeGlobal;
  return cudaSuccess;
}
