// SPDX-License-Identifier: MIT
// A capsule may come from anybody: all that it says is checked before its memory is touched.
#include "dlpack.hpp"

#include <array>
#include <memory>
#include <string_view>
#include <utility>

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

struct Row {
  DType dtype;
  uint8_t code, bits;
};
constexpr Row kTypes[] = {
    {DType::float32, dlpack::kFloat, 32},   {DType::float64, dlpack::kFloat, 64},
    {DType::bfloat16, dlpack::kBfloat, 16}, {DType::float16, dlpack::kFloat, 16},
    {DType::boolean, dlpack::kBool, 8},     {DType::int8, dlpack::kInt, 8},
    {DType::int16, dlpack::kInt, 16},       {DType::int32, dlpack::kInt, 32},
    {DType::int64, dlpack::kInt, 64},       {DType::uint8, dlpack::kUInt, 8},
    {DType::uint16, dlpack::kUInt, 16},     {DType::uint32, dlpack::kUInt, 32},
    {DType::uint64, dlpack::kUInt, 64},
};

// ---- in -----------------------------------------------------------------------------------------

// The capsule that an object makes; a producer from before DLPack 1 knows no version, one on the
// CPU perhaps no stream.
py::object capsule_of(py::handle object, const py::object& stream, const char* op,
                      const char* name) {
  const py::object method = object.attr("__dlpack__");
  check_type(!py::hasattr(object, "is_neg") || !py::bool_(object.attr("is_neg")()),
             "{}: {} is a view of PyTorch's that negates its memory, which DLPack cannot say; call "
             ".resolve_neg() on it",
             op, name);
  py::dict options;
  if (!stream.is_none()) options["stream"] = stream;
  py::dict asked(**options, py::arg("max_version") = py::make_tuple(1, 0));
  try {
    return method(**asked);
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;
    return method(**options);
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

template <class M>
M* consume(PyObject* capsule, const char* name, const char* used_name) {
  auto* managed = static_cast<M*>(PyCapsule_GetPointer(capsule, name));
  if (managed == nullptr || PyCapsule_SetName(capsule, used_name) != 0) {
    throw py::error_already_set();
  }
  return managed;
}

// Sets strides, those of C order where none are given or there are no elements.
void set_strides(Tensor& tensor, const int64_t* given) {
  const Dims& shape = tensor.shape;
  tensor.strides = shape;
  int64_t packed = 1;
  for (int axis = shape.count - 1; axis >= 0; --axis) {
    tensor.strides[axis] = packed;
    packed *= shape[axis];
  }
  if (given == nullptr || packed == 0) return;
  for (int axis = 0; axis < shape.count; ++axis) {
    if (shape[axis] != 1 && given[axis] != tensor.strides[axis]) tensor.contiguous = false;
    tensor.strides[axis] = given[axis];
  }
}

// True if the byte offsets of all elements fit into 64 bits.
bool is_reachable(const Tensor& tensor, int64_t item) {
  int64_t reach = item;
  for (int axis = 0; axis < tensor.shape.count; ++axis) {
    const int64_t stride = tensor.strides[axis];
    int64_t step = 0, whole = 0;
    if (stride == INT64_MIN || __builtin_mul_overflow(stride < 0 ? -stride : stride, item, &step) ||
        __builtin_mul_overflow(step, tensor.shape[axis], &whole) ||
        __builtin_add_overflow(reach, whole, &reach)) {
      return false;
    }
  }
  return true;
}

Tensor checked(const dlpack::Tensor& from, const char* op, const char* name) {
  Tensor tensor;
  for (const Row& row : kTypes) {
    if (row.code == from.dtype.code && row.bits == from.dtype.bits) tensor.dtype = row.dtype;
  }
  check_type(tensor.dtype != DType::other && from.dtype.lanes == 1,
             "{}: {} has a DLPack type that tilegrad does not know (code {}, {} bits, {} lanes)",
             op, name, int{from.dtype.code}, int{from.dtype.bits}, from.dtype.lanes);
  check(from.ndim >= 0 && from.ndim <= Dims::kMax, "{}: {} must have 0 to {} axes; got {}", op,
        name, Dims::kMax, from.ndim);
  check(from.ndim == 0 || from.shape != nullptr, "{}: {} has {} axes and no sizes", op, name,
        from.ndim);
  for (int axis = 0; axis < from.ndim; ++axis) tensor.shape.push(from.shape[axis]);
  check_size(tensor.shape, op);
  const int64_t item = item_size(tensor.dtype);
  set_strides(tensor, from.strides);
  check(is_reachable(tensor, item), "{}: {} has strides beyond any memory; got {} for shape {}", op,
        name, tensor.strides, tensor.shape);
  if (tensor.size() == 0) return tensor;  // the address of nothing means nothing
  uintptr_t address = reinterpret_cast<uintptr_t>(from.data);
  check(address != 0, "{}: {} has shape {} and no memory", op, name, tensor.shape);
  check(!__builtin_add_overflow(address, from.byte_offset, &address),
        "{}: {} has an offset beyond any memory; got {} bytes", op, name, from.byte_offset);
  check_type(address % static_cast<uintptr_t>(item) == 0,
             "{}: {} must be aligned to its elements; it starts {} bytes after a multiple of {} "
             "(copy it first)",
             op, name, address % static_cast<uintptr_t>(item), item);
  tensor.data = reinterpret_cast<void*>(address);
  return tensor;
}

template <class M>
Taken taken(const M& managed, py::object owner, const char* op, const char* name) {
  Taken result{.tensor = checked(managed.tensor, op, name), .device = managed.tensor.device};
  result.tensor.owner = std::move(owner);
  return result;
}

// ---- out ----------------------------------------------------------------------------------------

// What keeps an exported tensor's sizes and its owner alive.
template <class M>
struct Export {
  M managed{};
  std::array<int64_t, Dims::kMax> shape{}, strides{};
  PyObject* owner = nullptr;

  static void forget(M* managed) {
    auto* self = static_cast<Export*>(managed->context);
    if (Py_IsInitialized() != 0) {
      py::gil_scoped_acquire gil;
      Py_XDECREF(self->owner);
    }
    delete self;
  }
};

template <class M>
constexpr const char* kNameOf = dlpack::kName;
template <>
constexpr const char* kNameOf<dlpack::ManagedVersioned> = dlpack::kVersionedName;

template <class M>
std::unique_ptr<Export<M>> exported(const Tensor& tensor, dlpack::Device device) {
  auto result = std::make_unique<Export<M>>();
  dlpack::Tensor& out = result->managed.tensor;
  out.data = tensor.size() == 0 ? nullptr : tensor.data;
  out.device = device;
  out.ndim = tensor.shape.count;
  for (const Row& row : kTypes) {
    if (row.dtype == tensor.dtype) out.dtype = {row.code, row.bits, 1};
  }
  for (int axis = 0; axis < tensor.shape.count; ++axis) {
    result->shape[static_cast<size_t>(axis)] = tensor.shape[axis];
    result->strides[static_cast<size_t>(axis)] = tensor.strides[axis];
  }
  out.shape = result->shape.data();
  out.strides = result->strides.data();
  result->managed.context = result.get();
  result->managed.deleter = &Export<M>::forget;
  return result;
}

template <class M>
py::capsule capsule_with(std::unique_ptr<Export<M>> made, const Tensor& tensor) {
  PyObject* capsule = PyCapsule_New(&made->managed, kNameOf<M>, [](PyObject* self) {
    if (PyCapsule_IsValid(self, kNameOf<M>) == 0) return;  // renamed by whoever consumed it
    auto* managed = static_cast<M*>(PyCapsule_GetPointer(self, kNameOf<M>));
    managed->deleter(managed);
  });
  if (capsule == nullptr) throw py::error_already_set();
  made.release()->owner = tensor.owner.inc_ref().ptr();
  return py::reinterpret_steal<py::capsule>(capsule);
}

}  // namespace

dlpack::Device device_of(py::handle object, const char* op, const char* name) {
  py::object device;
  try {
    device = object.attr("__dlpack_device__")();
  } catch (py::error_already_set& error) {  // the producer's own
    if (!error.matches(PyExc_Exception)) throw;
    throw TypeError(format("{}: {} could not be read through DLPack: {}", op, name,
                           py::str(error.value()).cast<std::string>()));
  }
  if (py::isinstance<py::tuple>(device) && py::len(device) == 2) {
    const long type = PyLong_AsLong(device[py::int_(0)].ptr());
    const long id = PyLong_AsLong(device[py::int_(1)].ptr());
    const bool whole = PyErr_Occurred() == nullptr;
    PyErr_Clear();
    if (whole && std::in_range<int32_t>(type) && std::in_range<int32_t>(id)) {
      return {static_cast<int32_t>(type), static_cast<int32_t>(id)};
    }
  }
  throw TypeError(format(
      "{}: {} could not be read through DLPack: __dlpack_device__ must return two integers; got {}",
      op, name, py::repr(device).cast<std::string>()));
}

Taken take_dlpack(py::handle object, const py::object& stream, const char* op, const char* name) {
  py::object made;
  PyObject* capsule = object.ptr();
  if (!PyCapsule_CheckExact(capsule)) {
    made = capsule_of(object, stream, op, name);
    capsule = made.ptr();
  }
  if (PyCapsule_IsValid(capsule, dlpack::kVersionedName) != 0) {
    using Managed = dlpack::ManagedVersioned;
    auto* managed = consume<Managed>(capsule, dlpack::kVersionedName, dlpack::kUsedVersionedName);
    py::object owner = own(managed);
    check_type(managed->major == 1, "{}: {} has DLPack version {}; this reads version 1", op, name,
               managed->major);
    Taken result = taken(*managed, std::move(owner), op, name);
    result.versioned = true;
    result.read_only = (managed->flags & dlpack::kReadOnly) != 0;
    result.copied = (managed->flags & dlpack::kIsCopied) != 0;
    return result;
  }
  check_type(PyCapsule_IsValid(capsule, dlpack::kName) != 0,
             "{}: {} must be a DLPack capsule that nobody has consumed; got one named {}", op, name,
             PyCapsule_CheckExact(capsule) && PyCapsule_GetName(capsule) != nullptr
                 ? PyCapsule_GetName(capsule)
                 : "nothing");
  auto* managed = consume<dlpack::Managed>(capsule, dlpack::kName, dlpack::kUsedName);
  return taken(*managed, own(managed), op, name);
}

py::capsule make_capsule(const Tensor& tensor, dlpack::Device device, bool versioned,
                         uint64_t flags) {
  if (!versioned) return capsule_with(exported<dlpack::Managed>(tensor, device), tensor);
  auto made = exported<dlpack::ManagedVersioned>(tensor, device);
  made->managed.major = 1;
  made->managed.minor = 0;
  made->managed.flags = flags;
  return capsule_with(std::move(made), tensor);
}

}  // namespace tilegrad::TILEGRAD_BACKEND
