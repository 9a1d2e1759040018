// SPDX-License-Identifier: MIT
// How a recorded plan runs on a device: the first time call by call, which fills the plan's own
// workspace; the second time the calls are captured as a CUDA graph; from then on one launch of the
// graph does them all. The batch is copied into the buffers that the graph reads.
#pragma once

#include <exception>

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
  return tensor;
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
    for (Form& form : forms_) {
      if (form.graph != nullptr) cudaGraphExecDestroy(form.graph);
    }
    if (capturing_ != nullptr) cudaStreamDestroy(capturing_);
  }

  // `form` tells apart the two ways in which a plan's calls may run (gradients stored or added).
  template <class Calls>
  void run(Context& context, int form, Calls&& calls) {
    Form& now = forms_[form];
    const auto stream = static_cast<cudaStream_t>(context.stream);
    if (now.runs++ == 0) {
      Context own{.stream = stream, .workspace = &workspace_};
      calls(own);
      return;
    }
    if (now.graph == nullptr) now.graph = capture(calls);
    CUDA_CHECK(cudaGraphLaunch(now.graph, stream));
  }

 private:
  struct Form {
    int64_t runs = 0;
    cudaGraphExec_t graph = nullptr;
  };

  // On a stream of its own: other threads may be using the shared one.
  template <class Calls>
  cudaGraphExec_t capture(Calls&& calls) {
    if (capturing_ == nullptr) {
      CUDA_CHECK(cudaStreamCreateWithFlags(&capturing_, cudaStreamNonBlocking));
    }
    Context own{.stream = capturing_, .workspace = &workspace_};
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
      std::rethrow_exception(failure);
    }
    CUDA_CHECK(ended);
    cudaGraphExec_t executable = nullptr;
    const cudaError_t made = cudaGraphInstantiate(&executable, graph, 0);
    cudaGraphDestroy(graph);
    CUDA_CHECK(made);
    return executable;
  }

  Workspace workspace_;
  Form forms_[2];
  cudaStream_t capturing_ = nullptr;
};

}  // namespace tilegrad::TILEGRAD_BACKEND
