// SPDX-License-Identifier: MIT
#include "exchange.hpp"

#include <string>
#include <vector>

#include "../dlpack.hpp"
#include "bfloat16.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

using py::detail::npy_api;

constexpr int kHalf = 23;  // NPY_HALF
struct Row {
  DType dtype;
  int number;
};
constexpr Row kNumbers[] = {
    {DType::float32, npy_api::NPY_FLOAT_},
    {DType::float64, npy_api::NPY_DOUBLE_},
    {DType::float16, kHalf},
    {DType::boolean, npy_api::NPY_BOOL_},
    {DType::int8, npy_api::NPY_BYTE_},
    {DType::int16, npy_api::NPY_SHORT_},
    {DType::int32, npy_api::NPY_INT32_},
    {DType::int64, npy_api::NPY_INT64_},
    {DType::uint8, npy_api::NPY_UBYTE_},
    {DType::uint16, npy_api::NPY_USHORT_},
    {DType::uint32, npy_api::NPY_UINT32_},
    {DType::uint64, npy_api::NPY_UINT64_},
};

py::dtype numpy_dtype(DType dtype, const char* op) {
  if (dtype == DType::bfloat16) return bfloat16_dtype(op);
  int number = npy_api::NPY_FLOAT_;
  for (const Row& row : kNumbers) {
    if (row.dtype == dtype) number = row.number;
  }
  return py::dtype(number);
}

DType dtype_of(const py::dtype& dtype) {
  if (is_bfloat16(dtype)) return DType::bfloat16;
  for (const Row& row : kNumbers) {
    if (row.number == dtype.normalized_num()) return row.dtype;
  }
  return DType::other;
}

}  // namespace

py::array array_from_dlpack(py::handle object, const char* op, const char* name) {
  const auto check_device = [&](int32_t type) {
    check_type(type == dlpack::kCpu || type == dlpack::kCudaHost,
               "{}: {} is on another device (DLPack device type {}); this is the cpu backend", op,
               name, type);
  };
  if (!PyCapsule_CheckExact(object.ptr())) check_device(device_of(object, op, name).type);
  const Taken taken = take_dlpack(object, py::none(), op, name);
  check_device(taken.device.type);
  const Tensor& tensor = taken.tensor;
  const int64_t item = item_size(tensor.dtype);
  std::vector<py::ssize_t> sizes, strides;
  for (int axis = 0; axis < tensor.shape.count; ++axis) {
    sizes.push_back(tensor.shape[axis]);
    strides.push_back(tensor.strides[axis] * item);
  }
  const py::dtype dtype = numpy_dtype(tensor.dtype, op);
  py::array array(dtype, sizes, strides, tensor.data, tensor.owner);
  // A capsule from before DLPack 1 cannot say whether its memory may be written.
  if (taken.read_only || !taken.versioned) array.attr("flags").attr("writeable") = false;
  return array;
}

py::capsule array_to_dlpack(const py::array& array, bool versioned, bool copied) {
  const auto refuse = [](const std::string& why) {
    PyErr_SetString(PyExc_BufferError, why.c_str());
    throw py::error_already_set();
  };
  Tensor tensor;
  tensor.dtype = dtype_of(array.dtype());
  const int64_t item = array.itemsize();
  bool whole = tensor.dtype != DType::other && array.ndim() <= Dims::kMax;
  for (int axis = 0; whole && axis < array.ndim(); ++axis) {
    tensor.shape.push(array.shape(axis));
    tensor.strides.push(array.strides(axis) / item);
    whole = array.strides(axis) % item == 0;
  }
  if (!whole) refuse("to_dlpack: DLPack cannot describe the array's dtype or strides");
  if (!versioned && !array.writeable()) {
    refuse(
        "to_dlpack: the array is read-only, which only DLPack 1 can say (ask for "
        "max_version=(1, 0), or copy the array)");
  }
  tensor.data = const_cast<void*>(array.data());
  tensor.owner = array;
  return make_capsule(
      tensor, {dlpack::kCpu, 0}, versioned,
      (array.writeable() ? 0 : dlpack::kReadOnly) | (copied ? dlpack::kIsCopied : 0));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
