// SPDX-License-Identifier: MIT
// The C structures of DLPack, as its specification lays them out (dmlc/dlpack, versions 0.8 and 1),
// and how a tensor is taken out of a producer's capsule.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "../check.hpp"

namespace tilegrad::dlpack {

inline constexpr int32_t kCpu = 1, kCuda = 2, kCudaHost = 3, kCudaManaged = 13;
enum Code : uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kBool = 6 };
inline constexpr uint64_t kReadOnly = 1;  // flag of a versioned tensor

struct Device {
  int32_t type;
  int32_t id;
};

struct DataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; null for C-contiguous
  uint64_t byte_offset;
};

struct Managed {
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};

struct ManagedVersioned {
  uint32_t major, minor;
  void* context;
  void (*deleter)(ManagedVersioned*);
  uint64_t flags;
  Tensor tensor;
};

inline constexpr const char* kName = "dltensor";
inline constexpr const char* kUsedName = "used_dltensor";
inline constexpr const char* kVersionedName = "dltensor_versioned";
inline constexpr const char* kUsedVersionedName = "used_dltensor_versioned";

namespace py = pybind11;

// The capsule that an object makes for a consumer's stream; None where there is none.
inline py::object capsule_of(py::handle object, const py::object& stream) {
  const py::object method = object.attr("__dlpack__");
  try {
    return method(py::arg("stream") = stream, py::arg("max_version") = py::make_tuple(1, 0));
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;
    return method(py::arg("stream") = stream);  // written before DLPack 1
  }
}

// Calls a managed tensor's deleter when Python forgets it.
template <class M>
py::object own(M* managed) {
  PyObject* owner = PyCapsule_New(managed, nullptr, [](PyObject* capsule) {
    auto* managed = static_cast<M*>(PyCapsule_GetPointer(capsule, nullptr));
    if (managed->deleter != nullptr) managed->deleter(managed);
  });
  if (owner == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(owner);
}

// What a capsule held, which may be taken once; the memory lives as long as the owner.
struct Taken {
  Tensor tensor;
  py::object owner;
  bool read_only = false;
};

template <class M>
M* consume(PyObject* capsule, const char* name, const char* used_name) {
  auto* managed = static_cast<M*>(PyCapsule_GetPointer(capsule, name));
  if (managed == nullptr || PyCapsule_SetName(capsule, used_name) != 0) {
    throw py::error_already_set();
  }
  return managed;
}

inline Taken take(PyObject* capsule, const char* op, const char* name) {
  if (PyCapsule_IsValid(capsule, kVersionedName) != 0) {
    auto* managed = consume<ManagedVersioned>(capsule, kVersionedName, kUsedVersionedName);
    py::object owner = own(managed);
    check_type(managed->major == 1, "{}: {} has DLPack version {}; this reads version 1", op, name,
               managed->major);
    return {managed->tensor, owner, (managed->flags & kReadOnly) != 0};
  }
  check_type(PyCapsule_IsValid(capsule, kName) != 0,
             "{}: {} must be a DLPack capsule that nobody has consumed; got one named {}", op, name,
             PyCapsule_CheckExact(capsule) && PyCapsule_GetName(capsule) != nullptr
                 ? PyCapsule_GetName(capsule)
                 : "nothing");
  auto* managed = consume<Managed>(capsule, kName, kUsedName);
  return {managed->tensor, own(managed)};
}

}  // namespace tilegrad::dlpack
