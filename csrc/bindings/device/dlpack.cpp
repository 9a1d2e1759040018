// SPDX-License-Identifier: MIT
// DLPack in and out: memory is shared, never copied, and the streams of both sides are ordered.
#include "../dlpack.hpp"

#include <array>
#include <memory>

#include "storage.hpp"

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

// What keeps an exported tensor's sizes and its Array alive.
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
py::capsule make_capsule(const Tensor& tensor, const char* name) {
  auto exported = std::make_unique<Export<M>>();
  dlpack::Tensor& out = exported->managed.tensor;
  out.data = tensor.data;
#ifdef TILEGRAD_SIM
  out.device = {dlpack::kCpu, 0};
#else
  out.device = {dlpack::kCuda, tensor.place};
#endif
  out.ndim = tensor.shape.count;
  for (const Row& row : kTypes) {
    if (row.dtype == tensor.dtype) out.dtype = {row.code, row.bits, 1};
  }
  for (int axis = 0; axis < tensor.shape.count; ++axis) {
    exported->shape[static_cast<size_t>(axis)] = tensor.shape[axis];
    exported->strides[static_cast<size_t>(axis)] = tensor.strides[axis];
  }
  out.shape = exported->shape.data();
  out.strides = exported->strides.data();
  exported->owner = tensor.owner.inc_ref().ptr();
  exported->managed.context = exported.get();
  exported->managed.deleter = &Export<M>::forget;
  PyObject* capsule = PyCapsule_New(&exported->managed, name, [](PyObject* self) {
    const char* current = PyCapsule_GetName(self);  // changed by whoever consumed it
    if (current == nullptr || std::string_view(current).starts_with("used_")) return;
    auto* managed = static_cast<M*>(PyCapsule_GetPointer(self, current));
    managed->deleter(managed);
  });
  if (capsule == nullptr) {
    Export<M>::forget(&exported.release()->managed);
    throw py::error_already_set();
  }
  exported.release();
  return py::reinterpret_steal<py::capsule>(capsule);
}

}  // namespace

Tensor import_dlpack(py::handle object, const char* op, const char* name, bool* read_only) {
  PyObject* capsule = object.ptr();
  py::object made;
  if (!PyCapsule_CheckExact(capsule)) {
    const auto device = object.attr("__dlpack_device__")().cast<py::tuple>();
#ifdef TILEGRAD_SIM
    const int place = kFirstPlace;
    const py::object stream = py::none();
    check_type(device[0].cast<int>() == dlpack::kCpu,
               "{}: {} is on another device (DLPack device type {}); the sim backend reads host "
               "memory",
               op, name, device[0].cast<int>());
#else
    check_type(device[0].cast<int>() == dlpack::kCuda,
               "{}: {} is on another device (DLPack device type {}), the call is on cuda; put "
               "every operand on one device with tilegrad.asarray(x, device=...)",
               op, name, device[0].cast<int>());
    const int place = device[1].cast<int>();
    enter(place);
    const py::object stream = py::int_(reinterpret_cast<intptr_t>(current_stream(place)));
#endif
    (void)place;
    made = dlpack::capsule_of(object, stream);
    capsule = made.ptr();
  }
  const dlpack::Taken taken = dlpack::take(capsule, op, name);
  const dlpack::Tensor& from = taken.tensor;
  *read_only = taken.read_only;
  Tensor tensor;
#ifdef TILEGRAD_SIM
  check_type(from.device.type == dlpack::kCpu, "{}: {} must be in host memory; got device type {}",
             op, name, from.device.type);
  tensor.place = kFirstPlace;
#else
  check_type(from.device.type == dlpack::kCuda, "{}: {} must be in CUDA memory; got device type {}",
             op, name, from.device.type);
  tensor.place = from.device.id;
#endif
  tensor.data = static_cast<char*>(from.data) + from.byte_offset;
  for (const Row& row : kTypes) {
    if (row.code == from.dtype.code && row.bits == from.dtype.bits) tensor.dtype = row.dtype;
  }
  check_type(tensor.dtype != DType::other && from.dtype.lanes == 1,
             "{}: {} has a DLPack type that tilegrad does not know (code {}, {} bits, {} lanes)",
             op, name, int{from.dtype.code}, int{from.dtype.bits}, from.dtype.lanes);
  int64_t expected = 1;
  for (int axis = 0; axis < from.ndim; ++axis) tensor.shape.push(from.shape[axis]);
  Dims packed = tensor.shape;
  for (int axis = from.ndim - 1; axis >= 0; --axis) {
    packed[axis] = expected;
    expected *= tensor.shape[axis];
  }
  for (int axis = 0; axis < from.ndim; ++axis) {
    const int64_t stride = from.strides == nullptr ? packed[axis] : from.strides[axis];
    tensor.strides.push(stride);
    if (tensor.shape[axis] != 1 && stride != packed[axis]) tensor.contiguous = false;
  }
  tensor.contiguous = tensor.contiguous || expected == 0;
  tensor.owner = taken.owner;
  return tensor;
}

py::capsule export_dlpack(const Tensor& tensor, bool versioned) {
  if (!versioned) return make_capsule<dlpack::Managed>(tensor, dlpack::kName);
  py::capsule capsule = make_capsule<dlpack::ManagedVersioned>(tensor, dlpack::kVersionedName);
  auto* managed = static_cast<dlpack::ManagedVersioned*>(
      PyCapsule_GetPointer(capsule.ptr(), dlpack::kVersionedName));
  managed->major = 1;
  managed->minor = 0;
  return capsule;
}

}  // namespace tilegrad::TILEGRAD_BACKEND
