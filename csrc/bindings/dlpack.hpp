// SPDX-License-Identifier: MIT
// The C structures of DLPack, as its specification lays them out (dmlc/dlpack, versions 0.8 and 1),
// how a tensor is taken out of a producer's capsule and how one is put into a capsule.
#pragma once

#include <cstdint>

#include "arrays.hpp"

namespace tilegrad::dlpack {

inline constexpr int32_t kCpu = 1, kCuda = 2, kCudaHost = 3, kCudaManaged = 13;
enum Code : uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kBool = 6 };
inline constexpr uint64_t kReadOnly = 1, kIsCopied = 2;  // flags of a versioned tensor

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

}  // namespace tilegrad::dlpack

namespace tilegrad::TILEGRAD_BACKEND {

// What a capsule held; the memory lives as long as the tensor's owner.
struct Taken {
  Tensor tensor;
  dlpack::Device device;
  bool versioned = false;  // else nothing is known of the two below
  bool read_only = false;
  bool copied = false;  // by its producer: what is written here reaches nobody else
};

// The device that an object names by __dlpack_device__.
dlpack::Device device_of(py::handle object, const char* op, const char* name);

// Takes the tensor of an object with __dlpack__, whose producer makes `stream` wait, or of a
// capsule; TypeError or ValueError for what makes no sense, whatever its producer is.
Taken take_dlpack(py::handle object, const py::object& stream, const char* op, const char* name);

// A capsule that keeps the tensor's owner alive; versioned (DLPack 1) or not.
py::capsule make_capsule(const Tensor& tensor, dlpack::Device device, bool versioned,
                         uint64_t flags);

}  // namespace tilegrad::TILEGRAD_BACKEND
