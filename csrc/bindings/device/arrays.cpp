// SPDX-License-Identifier: MIT
// Arrays of the cuda and sim backends: tilegrad.Array, and on cuda whatever lies on the device
// behind DLPack.
#include "../arrays.hpp"

#include "../dlpack.hpp"
#include "storage.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

// Names that are looked up in every call, made once.
struct Names {
  py::object type = py::module_::import("tilegrad.array").attr("Array");
  py::str storage = py::str("_storage"), pointer = py::str("_pointer"), dtype = py::str("_dtype"),
          place = py::str("_place"), shape = py::str("_shape");
  Names() {
    for (py::str* name : {&storage, &pointer, &dtype, &place, &shape}) {
      PyObject* interned = name->release().ptr();
      PyUnicode_InternInPlace(&interned);
      *name = py::reinterpret_steal<py::str>(interned);
    }
  }
};
const Names& names() {
  static const Names* const made = new Names;  // not destroyed: Python ends before statics do
  return *made;
}

int64_t integer(py::handle object, const py::str& name) {
  const auto value = py::reinterpret_steal<py::object>(PyObject_GetAttr(object.ptr(), name.ptr()));
  if (!value) throw py::error_already_set();
  return PyLong_AsLongLong(value.ptr());
}

std::string place_of(py::handle object) {
  if (py::hasattr(object, "device")) return py::str(object.attr("device")).cast<std::string>();
  return "cpu";
}

// The first operand says where a call works; the others must be there too.
void join_call(const Tensor& tensor, const char* op, const char* name) {
  CallContext* call = CallContext::current();
  if (call == nullptr) return;
  if (!call->placed()) {
    call->named(op);
    return call->at(tensor.place);
  }
  check_type(call->place() == tensor.place,
             "{}: {} is on {}, the call is on {}; put every operand on one device with "
             "tilegrad.asarray(x, device=...)",
             op, name, place_name(tensor.place), place_name(call->place()));
}

// Rows of a matrix whose columns are contiguous, as a transposed tensor has.
bool is_transposed_matrix(const Tensor& t) {
  return t.shape.count == 2 && t.strides[0] == 1 && t.strides[1] >= t.shape[0];
}

bool ranges_overlap(const Tensor& a, const Tensor& b) {
  const auto end = [](const Tensor& t) {
    return static_cast<const char*>(t.data) + t.size() * item_size(t.dtype);
  };
  return a.data < end(b) && b.data < end(a);
}

Tensor read_foreign(py::handle object, const char* op, const char* name, Access* access) {
  const bool is_list = py::isinstance<py::list>(object) || py::isinstance<py::tuple>(object);
  const CallContext* call = CallContext::current();
  const std::string here =
      call != nullptr && call->placed() ? place_name(call->place()) : kBackendName;
  if (is_list || !py::hasattr(object, "__dlpack__")) {
    const char* hint =
        py::hasattr(object, "grad_buffer") ? "pass its .data" : "call tilegrad.asarray on it";
    throw TypeError(format("{}: {} must be a tilegrad.Array on {}; got {} ({})", op, name, here,
                           type_name(object), hint));
  }
#ifdef TILEGRAD_SIM
  (void)access;
  throw TypeError(
      format("{}: {} is on {} ({}), the call is on {}; put every operand on one device with "
             "tilegrad.asarray(x, device=...)",
             op, name, place_of(object), type_name(object), here));
#else
  const int32_t type = device_of(object, op, name).type;
  check_type(type == dlpack::kCuda || type == dlpack::kCudaManaged,
             "{}: {} is on {} ({}), the call is on {}; put every operand on one device with "
             "tilegrad.asarray(x, device=...)",
             op, name, place_of(object), type_name(object), here);
  Tensor tensor = import_dlpack(object, op, name, access);
  // The managed tensor stays alive through the owner's attribute of the call: the object itself.
  tensor.keep = tensor.owner;
  tensor.owner = py::reinterpret_borrow<py::object>(object);
  return tensor;
#endif
}

}  // namespace

bool is_array(py::handle object) {
  return Py_TYPE(object.ptr()) == (PyTypeObject*)names().type.ptr();
}

bool is_immutable(py::handle object) {
  const auto module = py::str(py::type::handle_of(object).attr("__module__")).cast<std::string>();
  return module.starts_with("jax");
}

Tensor array_view(py::handle array, const char* op, const char* name) {
  const Names& n = names();
  Tensor tensor;
  tensor.place = static_cast<int>(integer(array, n.place));
#ifdef TILEGRAD_SIM
  const bool own = tensor.place == kFirstPlace;
#else
  const bool own = tensor.place >= kFirstPlace;
#endif
  if (!own) {
    const CallContext* call = CallContext::current();
    const std::string here =
        call != nullptr && call->placed() ? place_name(call->place()) : kBackendName;
    throw TypeError(
        format("{}: {} is on {}, the call is on {}; put every operand on one device "
               "with tilegrad.asarray(x, device=...)",
               op, name, place_of(array), here));
  }
  tensor.data = reinterpret_cast<void*>(static_cast<intptr_t>(integer(array, n.pointer)));
  tensor.dtype = static_cast<DType>(integer(array, n.dtype));
  const auto shape = py::reinterpret_steal<py::tuple>(PyObject_GetAttr(array.ptr(), n.shape.ptr()));
  const auto count = static_cast<int>(shape.size());
  for (int axis = 0; axis < count; ++axis) {
    tensor.shape.push(PyLong_AsLongLong(PyTuple_GET_ITEM(shape.ptr(), axis)));
    tensor.strides.push(0);
  }
  int64_t stride = 1;
  for (int axis = count - 1; axis >= 0; --axis) {
    tensor.strides[axis] = stride;
    stride *= tensor.shape[axis];
  }
  tensor.owner = py::reinterpret_borrow<py::object>(array);
  array.attr(n.storage).cast<Storage&>().used_on(current_stream(tensor.place));
  return tensor;
}

void check_writable(py::handle array, const char* op, const char* name) {
  const bool read_only = array.attr(names().storage).cast<Storage&>().read_only();
  check(!read_only, "{}: {} is read-only", op, name);
}

py::object make_array(py::object storage, void* data, DType dtype, int place, const Dims& shape) {
  const Names& n = names();
  auto* type = reinterpret_cast<PyTypeObject*>(n.type.ptr());
  auto array = py::reinterpret_steal<py::object>(type->tp_alloc(type, 0));
  if (!array) throw py::error_already_set();
  py::tuple sizes(static_cast<size_t>(shape.count));
  for (int axis = 0; axis < shape.count; ++axis) {
    sizes[static_cast<size_t>(axis)] = py::int_(shape[axis]);
  }
  const auto set = [&](const py::str& name, const py::object& value) {
    if (PyObject_SetAttr(array.ptr(), name.ptr(), value.ptr()) != 0) throw py::error_already_set();
  };
  set(n.storage, storage);
  set(n.pointer, py::int_(reinterpret_cast<intptr_t>(data)));
  set(n.dtype, py::int_(static_cast<int>(dtype)));
  set(n.place, py::int_(place));
  set(n.shape, sizes);
  return array;
}

Tensor read(py::handle object, const char* op, const char* name, bool strided) {
  Access access;
  const Tensor tensor =
      is_array(object) ? array_view(object, op, name) : read_foreign(object, op, name, &access);
  join_call(tensor, op, name);
  check_type(tensor.contiguous || (strided && is_transposed_matrix(tensor)),
             "{}: {} must be C-contiguous{}; got shape {} with strides {} (call .contiguous() on "
             "it)",
             op, name, strided ? " or a transposed matrix" : "", tensor.shape, tensor.strides);
  return tensor;
}

bool is_scalar(py::handle object) {
  if (PyFloat_Check(object.ptr()) || PyLong_CheckExact(object.ptr())) return true;
  static const py::handle generic =
      py::object(py::module_::import("numpy").attr("generic")).release();
  return py::isinstance(object, generic);
}

void copy_bytes(Context& context, void* out, const void* from, size_t bytes) {
  if (bytes == 0) return;
  CUDA_CHECK(cudaMemcpyAsync(out, from, bytes, cudaMemcpyDeviceToDevice,
                             static_cast<cudaStream_t>(context.stream)));
}

Tensor empty(const Dims& shape, DType dtype, const char* op) {
  check_size(shape, op);
  const CallContext* call = CallContext::current();
  const int place = call == nullptr ? kFirstPlace : call->place();
  enter(place);
  auto storage =
      std::make_unique<Storage>(static_cast<size_t>(shape.product() * item_size(dtype)), place);
  void* data = storage->data();
  Tensor tensor = array_view(make_array(new_object(std::move(storage)), data, dtype, place, shape),
                             op, "result");
  return tensor;
}

Tensor make_result(py::handle out, const Dims& shape, DType dtype, const char* op,
                   std::initializer_list<const Tensor*> operands, bool may_be_input) {
  if (out.is_none()) return empty(shape, dtype, op);
  Access access;
  Tensor result;
  if (is_array(out)) {
    result = array_view(out, op, "out");
    check_writable(out, op, "out");
  } else {
    check_type(!py::isinstance<py::array>(out) && py::hasattr(out, "__dlpack__"),
               "{}: out must be a tilegrad.Array on {}; got {}", op, kBackendName, type_name(out));
    result = read_foreign(out, op, "out", &access);
    check(!access.read_only && !is_immutable(out), "{}: out is read-only", op);
    check(!access.copied, "{}: out was copied by its producer, which would not see the result", op);
  }
  join_call(result, op, "out");
  check_type(result.dtype == dtype, "{}: out must have dtype {}; got {}", op, dtype_name(dtype),
             dtype_name(result.dtype));
  check(result.shape == shape, "{}: out must have shape {}; got {}", op, shape, result.shape);
  check_type(result.contiguous, "{}: out must be C-contiguous; got strides {} (in elements)", op,
             result.strides);
  for (const Tensor* operand : operands) {
    if (operand->data == nullptr || result.size() == 0 || operand->size() == 0) continue;
    if (!ranges_overlap(result, *operand)) continue;
    const bool same = result.data == operand->data && result.shape == operand->shape &&
                      result.dtype == operand->dtype && operand->contiguous;
    check(same && may_be_input,
          "{}: out must not overlap an input or another result{}; pass separate arrays", op,
          may_be_input ? " except exactly" : "");
  }
  return result;
}

py::object scalar_result(const Tensor& tensor) { return tensor.owner; }

int64_t release_pool() { return static_cast<int64_t>(Allocator::instance().release()); }

// ---- storage ------------------------------------------------------------------------------------

Storage::Storage(size_t bytes, int place)
    : data_(Allocator::instance().take(bytes, place, current_stream(place))),
      bytes_(bytes),
      place_(place),
      stream_(current_stream(place)) {}

Storage::~Storage() {
  if (data_ != nullptr) {
    Allocator::instance().give(data_, bytes_, place_, stream_, others_);
  } else if (process_is_usable()) {  // the owner may use its memory at once, on any stream
    for (const cudaStream_t user : others_) cudaStreamSynchronize(user);
  }
}

void Storage::used_on(cudaStream_t stream) {
  if (stream == stream_) return;
  for (const cudaStream_t known : others_) {
    if (known == stream) return;
  }
  others_.push_back(stream);
}

}  // namespace tilegrad::TILEGRAD_BACKEND
