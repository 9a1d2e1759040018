// SPDX-License-Identifier: MIT
// How a recorded plan runs on a device: the first time call by call, which fills the plan's own
// workspace; the second time the calls are captured as a CUDA graph; from then on one launch of the
// graph does them all. In the graph a kernel may start while the one before it ends (launch_next).
// The batch is copied into the buffers that the graph reads.
#pragma once

#include <exception>
#include <memory>

#include "../../cuda/matmul_precision.hpp"
#include "../../cuda/synchronous.hpp"
#include "storage.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

// A batch may be NumPy's (it is copied to the device) or lie on the device already.
inline Tensor read_batch(py::handle object, const char* op) {
  if (!py::isinstance<py::array>(object)) return read(object, op, "a batch");
  const auto array = py::reinterpret_borrow<py::array>(object);
  Tensor tensor;
  tensor.dtype = numpy_dtype(array);
  tensor.data = const_cast<void*>(array.data());
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) tensor.shape.push(array.shape(axis));
  tensor.contiguous = (array.flags() & py::array::c_style) != 0;
  tensor.owner = array;
  tensor.place = kOnHost;
  check_type(array.dtype().byteorder() != '>', "{}: a batch must be in native byte order", op);
  check_type(!py::hasattr(object, "mask"),
             "{}: a batch is a masked array; call .filled(value) or .data first", op);
  return tensor;
}

// The current stream works on a buffer from now on. `object` may be a StepState too.
inline void note_use(py::handle object) {
  if (is_array(object)) array_view(object, "Plan", "a buffer");
}

inline void* bind_batch(Context& context, const Tensor& batch, void* placeholder) {
  const size_t bytes = static_cast<size_t>(batch.size() * item_size(batch.dtype));
  if (batch.place != kOnHost) {
    copy_bytes(context, placeholder, batch.data, bytes);
    return placeholder;
  }
  py::array array = py::reinterpret_borrow<py::array>(batch.owner);
  if (!batch.contiguous) {
    array = py::module_::import("numpy").attr("ascontiguousarray")(array).cast<py::array>();
  }
  const int place = CallContext::current()->place();
  staging(place).upload(placeholder, array.data(), bytes,
                        static_cast<cudaStream_t>(context.stream));
  return placeholder;
}

class Replay {
 public:
  Replay() = default;
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;
  ~Replay() {
    if (!process_is_usable()) return;
    for (Form& form : forms_) {
      if (form.graph != nullptr) cudaGraphExecDestroy(form.graph);
    }
    give_stream_back(place_, capturing_);
    if (several_streams_) {  // the workspace goes back in the order of one only
      cudaSetDevice(place_ - kFirstPlace);
      cudaDeviceSynchronize();
    }
  }

  // Before anything of a run is put on the context's stream: buffers, state and workspace of the
  // plan may still be in use on that of the run before. Whether this one is another.
  bool enter(const Context& context, int place) {
    const auto stream = static_cast<cudaStream_t>(context.stream);
    order_->enter(place, stream);
    if (stream == last_) return false;
    several_streams_ = last_ != nullptr;
    last_ = stream;
    place_ = place;
    return true;
  }
  // Both share buffers: what holds for the runs of each holds for those of both.
  void join(const Replay& other) { order_ = other.order_; }

  // `form` tells apart the two ways in which a plan's calls may run (gradients stored or added).
  template <class Calls>
  void run(Context& context, int form, Calls&& calls) {
    const Float32PrecisionScope scope(precision_);
    Form& now = forms_[form];
    const auto stream = static_cast<cudaStream_t>(context.stream);
    if (!now.has_run || synchronous_launches()) {
      Context own{.stream = stream, .workspace = &workspace_};
      calls(own);
      now.has_run = true;  // not after a failure: the workspace would be too small for a capture
      return;
    }
    if (now.graph == nullptr) now.graph = capture(calls);
    CUDA_CHECK(cudaGraphLaunch(now.graph, stream));
  }

 private:
  struct Form {
    bool has_run = false;
    cudaGraphExec_t graph = nullptr;
  };

  // On a stream of its own: other threads may be using the shared one.
  template <class Calls>
  cudaGraphExec_t capture(Calls&& calls) {
    if (capturing_ == nullptr) capturing_ = take_stream(place_);
    Context own{.stream = capturing_, .workspace = &workspace_};
    const OverlapScope overlap;
    CUDA_CHECK(cudaStreamBeginCapture(capturing_, cudaStreamCaptureModeThreadLocal));
    std::exception_ptr failure;
    try {
      calls(own);
    } catch (...) {
      failure = std::current_exception();  // the capture must be ended all the same
    }
    cudaGraph_t graph = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(capturing_, &graph);
    if (failure) {
      if (graph != nullptr) cudaGraphDestroy(graph);
      cudaGetLastError();  // of the capture that was given up
      std::rethrow_exception(failure);
    }
    check_cuda(ended, "cudaStreamEndCapture");
    cudaGraphExec_t executable = nullptr;
    const cudaError_t made = cudaGraphInstantiate(&executable, graph, 0);
    cudaGraphDestroy(graph);
    check_cuda(made, "cudaGraphInstantiate");
    return executable;
  }

  const Float32Precision precision_ = float32_precision();
  Workspace workspace_{true};
  Form forms_[2];
  int place_ = kFirstPlace;
  cudaStream_t capturing_ = nullptr;
  std::shared_ptr<StreamOrder> order_ = std::make_shared<StreamOrder>();
  cudaStream_t last_ = nullptr;
  bool several_streams_ = false;
};

}  // namespace tilegrad::TILEGRAD_BACKEND
