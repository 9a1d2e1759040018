// SPDX-License-Identifier: MIT
// Arrays of the cpu backend are numpy.ndarray; any other object is read through DLPack.
#include <pybind11/numpy.h>

#include <bit>
#include <cstring>
#include <vector>

#include "../../cpu/parallel.hpp"
#include "../arrays.hpp"
#include "bfloat16.hpp"
#include "exchange.hpp"
#include "pool.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

using py::detail::npy_api;

DType dtype_of(const py::dtype& dtype) {
  switch (dtype.num()) {
    case npy_api::NPY_FLOAT_:
      return DType::float32;
    case npy_api::NPY_DOUBLE_:
      return DType::float64;
    case npy_api::NPY_BOOL_:
      return DType::boolean;
    default:
      break;
  }
  if (is_bfloat16(dtype)) return DType::bfloat16;
  const bool is_signed = dtype.kind() == 'i';
  if (!is_signed && dtype.kind() != 'u') return DType::other;
  switch (dtype.itemsize()) {
    case 1:
      return is_signed ? DType::int8 : DType::uint8;
    case 2:
      return is_signed ? DType::int16 : DType::uint16;
    case 4:
      return is_signed ? DType::int32 : DType::uint32;
    default:
      return is_signed ? DType::int64 : DType::uint64;
  }
}

py::dtype numpy_dtype(DType dtype, const char* op) {
  if (dtype == DType::bfloat16) return bfloat16_dtype(op);
  return dtype == DType::float64 ? py::dtype::of<double>() : py::dtype::of<float>();
}

std::string device_text(py::handle array) {
  return py::hasattr(array, "device") ? py::str(array.attr("device")).cast<std::string>() : "";
}

// Anything that is no ndarray: a NumPy scalar, or memory behind DLPack.
py::object to_ndarray(py::handle object, const char* op, const char* name) {
  const py::module_ numpy = py::module_::import("numpy");
  if (py::isinstance(object, numpy.attr("generic"))) return numpy.attr("asarray")(object);
  check_type(!py::isinstance<py::list>(object) && !py::isinstance<py::tuple>(object),
             "{}: {} must be an array; got a {} (call np.asarray on it, with a dtype)", op, name,
             type_name(object));
  check_type(!py::hasattr(object, "_storage"),
             "{}: {} is on {}, the call is on cpu; call .numpy() on it, or put every operand on "
             "one device with tilegrad.asarray(x, device=...)",
             op, name, device_text(object));
  if (!py::hasattr(object, "__dlpack__")) {
    const bool is_parameter = py::hasattr(object, "grad_buffer");
    throw TypeError(format("{}: {} must be a numpy.ndarray or have __dlpack__; got {} ({})", op,
                           name, type_name(object),
                           is_parameter ? "pass its .data" : "call np.asarray on it"));
  }
  try {
    return array_from_dlpack(object, op, name);
  } catch (py::error_already_set& error) {  // the producer's own
    if (!error.matches(PyExc_Exception)) throw;
    throw TypeError(format("{}: {} could not be read through DLPack: {}", op, name,
                           py::str(error.value()).cast<std::string>()));
  }
}

bool aligned_and_native(const py::array& array) {
  return (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0 &&
         array.dtype().byteorder() != (std::endian::native == std::endian::little ? '>' : '<');
}

Tensor view(const py::array& array, const char* op, const char* name) {
  Tensor tensor;
  tensor.data = const_cast<void*>(array.data());
  tensor.dtype = dtype_of(array.dtype());
  const int count = static_cast<int>(array.ndim());
  check(count <= Dims::kMax, "{}: {} may have at most {} axes; got {}", op, name, Dims::kMax,
        count);
  const int64_t item = array.itemsize();
  for (int axis = 0; axis < count; ++axis) {
    tensor.shape.push(array.shape(axis));
    const int64_t stride = array.strides(axis);
    // Strides that are no multiple of the item occur in views of structured arrays only.
    const bool whole = item == 0 || stride % item == 0;
    check(whole || array.shape(axis) <= 1,
          "{}: strides of {} must be multiples of its item size; got {} for items of {} (call "
          "np.ascontiguousarray)",
          op, name, stride, item);
    tensor.strides.push(whole && item > 0 ? stride / item : 0);
  }
  tensor.contiguous = (array.flags() & py::array::c_style) != 0;
  tensor.owner = array;
  return tensor;
}

bool ranges_overlap(const Tensor& a, const Tensor& b) {
  const auto bounds = [](const Tensor& t) {
    int64_t low = 0, high = 1;
    for (int axis = 0; axis < t.shape.count; ++axis) {
      (t.strides[axis] < 0 ? low : high) += (t.shape[axis] - 1) * t.strides[axis];
    }
    const char* base = static_cast<const char*>(t.data);
    return std::pair(base + low * item_size(t.dtype), base + high * item_size(t.dtype));
  };
  const auto [a_low, a_high] = bounds(a);
  const auto [b_low, b_high] = bounds(b);
  return a_low < b_high && b_low < a_high;
}

void check_overlap(const Tensor& out, const Tensor& operand, bool may_be_input, const char* op) {
  if (operand.data == nullptr || out.size() == 0 || operand.size() == 0) return;
  if (!ranges_overlap(out, operand)) return;
  const bool same = out.data == operand.data && out.shape == operand.shape &&
                    out.dtype == operand.dtype && operand.contiguous;
  if (same && may_be_input) return;
  // The address ranges meet; whether an element is shared is a question for NumPy.
  const bool shared =
      same ||
      py::module_::import("numpy").attr("shares_memory")(out.owner, operand.owner).cast<bool>();
  check(!shared, "{}: out must not overlap an input or another result{}; pass separate arrays", op,
        may_be_input ? " except exactly" : "");
}

}  // namespace

Tensor read(py::handle object, const char* op, const char* name, bool) {
  const auto& api = npy_api::get();
  const bool exact = Py_TYPE(object.ptr()) == api.PyArray_Type_;
  py::array array = py::reinterpret_borrow<py::array>(object);
  if (!exact) {
    if (!py::isinstance<py::array>(object)) {
      array = py::reinterpret_steal<py::array>(to_ndarray(object, op, name).release());
    } else {
      check_type(!py::hasattr(object, "mask"),
                 "{}: {} is a masked array; call .filled(value) or .data first", op, name);
    }
  }
  check_type(aligned_and_native(array),
             "{}: {} must be aligned and in native byte order; call np.ascontiguousarray, or "
             "astype with the native dtype",
             op, name);
  return view(array, op, name);
}

bool is_scalar(py::handle object) {
  return PyFloat_CheckExact(object.ptr()) || PyLong_CheckExact(object.ptr());
}

void copy_bytes(Context&, void* out, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(out, from, bytes);
}

Tensor empty(const Dims& shape, DType dtype, const char* op) {
  check_size(shape, op);
  std::vector<py::ssize_t> sizes(shape.value, shape.value + shape.count);
  const size_t bytes = static_cast<size_t>(shape.product() * item_size(dtype));
  if (bytes < HostPool::kSmallest)
    return view(py::array(numpy_dtype(dtype, op), sizes), op, "result");
  void* data = HostPool::instance().take(bytes);
  struct Block {
    void* data;
    size_t bytes;
  };
  py::capsule base(new Block{data, bytes}, [](void* p) {
    auto* block = static_cast<Block*>(p);
    HostPool::instance().give(block->data, block->bytes);
    delete block;
  });
  return view(py::array(numpy_dtype(dtype, op), sizes, data, base), op, "result");
}

Tensor make_result(py::handle out, const Dims& shape, DType dtype, const char* op,
                   std::initializer_list<const Tensor*> operands, bool may_be_input) {
  if (out.is_none()) return empty(shape, dtype, op);
  if (!py::isinstance<py::array>(out)) {
    throw TypeError(format("{}: out must be a numpy.ndarray; got {}", op, type_name(out)));
  }
  const Tensor result = read(out, op, "out");
  if (result.dtype != dtype) {
    throw TypeError(
        format("{}: out must have dtype {}; got {}", op, dtype_name(dtype), dtype_text(out)));
  }
  check(result.shape == shape, "{}: out must have shape {}; got {}", op, shape, result.shape);
  check_type(result.contiguous, "{}: out must be C-contiguous; got strides {} (in elements)", op,
             result.strides);
  check(py::reinterpret_borrow<py::array>(out).writeable(), "{}: out is read-only", op);
  for (const Tensor* operand : operands) check_overlap(result, *operand, may_be_input, op);
  return result;
}

py::object scalar_result(const Tensor& tensor) {
  return py::reinterpret_borrow<py::array>(tensor.owner)[py::tuple(0)];
}

Context& thread_context() {
  struct ThreadState {
    Workspace workspace;
    Context context{.workspace = &workspace};
  };
  thread_local ThreadState state;
  state.context.max_threads = num_threads();  // one number for the whole call
  return state.context;
}

int64_t release_pool() {
  Workspace& workspace = *thread_context().workspace;
  const auto bytes = static_cast<int64_t>(workspace.reserved());
  workspace.release();
  return bytes + static_cast<int64_t>(HostPool::instance().release());
}

}  // namespace tilegrad::TILEGRAD_BACKEND
