// SPDX-License-Identifier: MIT
// DLPack and __cuda_array_interface__: memory is shared, never copied, and the streams of both
// sides are ordered.
#include "../dlpack.hpp"

#include "storage.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

// Memory that unified addressing migrates is the device's too.
bool is_here(int32_t type) {
#ifdef TILEGRAD_SIM
  return type == dlpack::kCpu;
#else
  return type == dlpack::kCuda || type == dlpack::kCudaManaged;
#endif
}

}  // namespace

Tensor import_dlpack(py::handle object, const char* op, const char* name, Access* access) {
  py::object stream = py::none();
  if (!PyCapsule_CheckExact(object.ptr())) {
    const dlpack::Device device = device_of(object, op, name);
    check_type(is_here(device.type),
               "{}: {} is on another device (DLPack device type {}), the call is on {}; put every "
               "operand on one device with tilegrad.asarray(x, device=...)",
               op, name, device.type, kBackendName);
#ifndef TILEGRAD_SIM
    enter(device.id);
    stream = py::int_(reinterpret_cast<intptr_t>(current_stream(device.id)));
#endif
  }
  Taken taken = take_dlpack(object, stream, op, name);
  check_type(is_here(taken.device.type), "{}: {} must be in memory of {}; got device type {}", op,
             name, kBackendName, taken.device.type);
  *access = {.read_only = taken.read_only, .copied = taken.copied};
#ifdef TILEGRAD_SIM
  taken.tensor.place = kFirstPlace;
#else
  taken.tensor.place = taken.device.id;
#endif
  return taken.tensor;
}

py::capsule export_dlpack(const Tensor& tensor, bool versioned, bool read_only, bool copied) {
#ifdef TILEGRAD_SIM
  const dlpack::Device device = {dlpack::kCpu, 0};
#else
  const dlpack::Device device = {dlpack::kCuda, tensor.place};
#endif
  return make_capsule(tensor, device, versioned,
                      (read_only ? dlpack::kReadOnly : 0) | (copied ? dlpack::kIsCopied : 0));
}

py::object from_memory(py::object owner, intptr_t pointer, const py::tuple& shape, int dtype,
                       bool read_only, const py::object& stream) {
  CallContext call;
  Dims sizes;
  for (py::handle size : shape) sizes.push(size.cast<int64_t>());
  check_size(sizes, "asarray");
  void* data = reinterpret_cast<void*>(pointer);
  int place = kFirstPlace;
  if (sizes.product() > 0) {
    cudaPointerAttributes found{};
    CUDA_CHECK(cudaPointerGetAttributes(&found, data));
    check_type(found.type == cudaMemoryTypeDevice || found.type == cudaMemoryTypeManaged,
               "asarray: __cuda_array_interface__ must point to memory of {}; got {}", kBackendName,
               data);
#ifndef TILEGRAD_SIM
    place = found.device;
#endif
  }
  call.at(place);
  if (!stream.is_none()) {
    wait_for(current_stream(place), reinterpret_cast<cudaStream_t>(stream.cast<intptr_t>()));
  }
  auto storage = std::make_unique<Storage>(std::move(owner), place, read_only);
  return make_array(new_object(std::move(storage)), data, static_cast<DType>(dtype), place, sizes);
}

void wait_for(cudaStream_t waiting, cudaStream_t stream) {
  if (waiting == stream) return;
  cudaEvent_t event = nullptr;
  CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  CUDA_CHECK(cudaEventRecord(event, stream));
  CUDA_CHECK(cudaStreamWaitEvent(waiting, event, 0));
  CUDA_CHECK(cudaEventDestroy(event));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
