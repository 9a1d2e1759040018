// SPDX-License-Identifier: MIT
// The memory behind a tilegrad.Array, and the Array as C++ sees it: a Python object with the slots
// _storage, _pointer, _dtype, _place and _shape.
#pragma once

#include <pybind11/numpy.h>

#include <vector>

#include "../arrays.hpp"
#include "../new_object.hpp"
#include "runtime.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

// Device memory of this backend's allocator, or a foreign owner's that is kept alive.
class Storage {
 public:
  Storage(size_t bytes, int place);
  Storage(py::object foreign, int place, bool read_only)
      : place_(place), read_only_(read_only), foreign_(std::move(foreign)) {}
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* data() const { return data_; }
  bool read_only() const { return read_only_; }
  // Work on this stream may use the memory: it is not handed out again before that work is done.
  void used_on(cudaStream_t stream);

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
  int place_;
  bool read_only_ = false;
  cudaStream_t stream_ = nullptr;
  std::vector<cudaStream_t> others_;
  py::object foreign_;
};

inline constexpr int kOnHost = -2;  // the place of memory that only the host reaches

DType numpy_dtype(const py::array& array);  // ml_dtypes' bfloat16 too

bool is_array(py::handle object);
bool is_immutable(py::handle object);  // by its library's contract, whatever its memory allows
// The view of an Array; TypeError if it is another backend's.
Tensor array_view(py::handle array, const char* op, const char* name);
// A new Array over memory that `storage` owns.
py::object make_array(py::object storage, void* data, DType dtype, int place, const Dims& shape);

// ValueError for an Array whose memory its owner does not want written.
void check_writable(py::handle array, const char* op, const char* name);

// What the owner of foreign memory says about writing to it.
struct Access {
  bool read_only = false;
  bool copied = false;  // its producer made a copy: nobody else would see what is written
};

// A tensor behind __dlpack__ on this backend's devices; TypeError for any other. Its producer makes
// the current stream wait for what it did.
Tensor import_dlpack(py::handle object, const char* op, const char* name, Access* access);
// A capsule for a consumer; versioned (DLPack 1) or not.
py::capsule export_dlpack(const Tensor& tensor, bool versioned, bool read_only, bool copied);
// An Array over memory at an address, as __cuda_array_interface__ describes it; what was put on
// `stream`, if it is one, comes before what the Array is used for.
py::object from_memory(py::object owner, intptr_t pointer, const py::tuple& shape, int dtype,
                       bool read_only, const py::object& stream);
// Makes a stream wait for what was put on another.
void wait_for(cudaStream_t waiting, cudaStream_t stream);

}  // namespace tilegrad::TILEGRAD_BACKEND
