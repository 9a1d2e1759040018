// SPDX-License-Identifier: MIT
// What every backend's arrays share: dtypes, broadcasting, packing, options.
#include "arrays.hpp"

#include <array>
#include <bit>
#include <ostream>

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr std::array<const char*, 14> kNames = {
    "float32", "float64", "bfloat16", "float16", "bool",   "int8",   "int16",
    "int32",   "int64",   "uint8",    "uint16",  "uint32", "uint64", "another dtype"};
constexpr std::array<int64_t, 14> kSizes = {4, 8, 2, 2, 1, 1, 2, 4, 8, 1, 2, 4, 8, 1};

struct NamedOption {
  const char* name = nullptr;
  double standard = 0;  // its default
};
struct NamedActivation {
  const char* name;
  ActivationKind kind;
  NamedOption alpha = {}, beta = {};
};
// prelu has a learned slope and is not among those that linear fuses.
constexpr NamedActivation kActivations[] = {
    {"identity", ActivationKind::identity},
    {"sigmoid", ActivationKind::sigmoid},
    {"tanh", ActivationKind::tanh},
    {"relu", ActivationKind::relu},
    {"leaky_relu", ActivationKind::leaky_relu, {"negative_slope", 0.01}},
    {"elu", ActivationKind::elu, {"alpha", 1}},
    {"selu", ActivationKind::selu},
    {"gelu", ActivationKind::gelu},
    {"gelu_tanh", ActivationKind::gelu_tanh},
    {"silu", ActivationKind::silu},
    {"softplus", ActivationKind::softplus, {"beta", 1}, {"threshold", 20}},
    {"mish", ActivationKind::mish},
    {"hardtanh", ActivationKind::hardtanh, {"min_val", -1}, {"max_val", 1}},
    {"relu6", ActivationKind::relu6},
    {"hardsigmoid", ActivationKind::hardsigmoid},
    {"hardswish", ActivationKind::hardswish},
};

}  // namespace

const char* dtype_name(DType dtype) { return kNames[static_cast<size_t>(dtype)]; }
int64_t item_size(DType dtype) { return kSizes[static_cast<size_t>(dtype)]; }

std::string dtype_text(py::handle array) {
  if (py::hasattr(array, "_dtype")) {  // an Array: its .dtype may need a package that is not there
    return dtype_name(static_cast<DType>(array.attr("_dtype").cast<int>()));
  }
  return py::str(array.attr("dtype")).cast<std::string>();
}
std::string type_name(py::handle object) {
  return py::str(py::type::handle_of(object).attr("__name__")).cast<std::string>();
}

std::ostream& operator<<(std::ostream& out, const Dims& dims) {
  out << "(";
  for (int axis = 0; axis < dims.count; ++axis) out << (axis > 0 ? ", " : "") << dims[axis];
  return out << (dims.count == 1 ? ",)" : ")");
}

Tensor read_float(py::handle object, const char* op, const char* name, Floats floats,
                  bool strided) {
  Tensor tensor = read(object, op, name, strided);
  const bool all = floats == Floats::all;
  const bool half = (kHasBfloat16 && tensor.dtype == DType::bfloat16) ||
                    (kHasFloat16 && tensor.dtype == DType::float16);
  if (!is_float(tensor.dtype) && !(all && half)) {
    const char* const wide = kHasFloat16    ? "float32, float64, bfloat16 or float16"
                             : kHasBfloat16 ? "float32, float64 or bfloat16"
                                            : "float32 or float64";
    throw TypeError(format("{}: {} must have dtype {}; got {}", op, name,
                           all ? wide : "float32 or float64", dtype_text(tensor.owner)));
  }
  return tensor;
}

Tensor read_like(const Tensor& like, py::handle object, const char* op, const char* name,
                 bool strided) {
  Tensor tensor = read_float(object, op, name, Floats::all, strided);
  check_type(tensor.dtype == like.dtype,
             "{}: floating inputs must share one dtype; {} is {}, the first input is {} (call "
             "astype)",
             op, name, dtype_name(tensor.dtype), dtype_name(like.dtype));
  return tensor;
}

Tensor read_grad_output(Context& context, const Tensor& like, py::handle object, const Dims& shape,
                        const char* op) {
  constexpr const char* kName = "grad_output";
  if (shape.count == 0 && is_scalar(object)) {
    Tensor scalar = empty({}, like.dtype, op);
    const double value = parse_number(object, op, kName);
    with_any_float(like.dtype, [&](auto t) { fill(context, scalar.as<decltype(t)>(), 1, value); });
    return scalar;
  }
  Tensor grad = read_like(like, object, op, kName);
  if (shape.count == 0) {
    check(grad.size() == 1, "{}: {} must be a scalar, as the result is; got shape {}", op, kName,
          grad.shape);
  } else {
    check_shape(grad, shape, op, kName);
  }
  return grad;
}

void check_size(const Dims& shape, const char* op) {
  int64_t bytes = sizeof(double);
  for (int axis = 0; axis < shape.count; ++axis) {
    check(shape[axis] >= 0, "{}: a size must be at least 0; got shape {}", op, shape);
    // Without the zeros, as NumPy has it: partial products are formed as well.
    const bool fits = shape[axis] == 0 || !__builtin_mul_overflow(bytes, shape[axis], &bytes);
    check(fits, "{}: the result is too large; got shape {}", op, shape);
  }
}

Tensor broadcast_to(const Tensor& tensor, const Dims& shape) {
  Tensor result = tensor;
  result.shape = shape;
  result.strides = Dims();
  const int added = shape.count - tensor.shape.count;
  for (int axis = 0; axis < shape.count; ++axis) {
    const bool repeated = axis < added || tensor.shape[axis - added] != shape[axis];
    result.strides.push(repeated ? 0 : tensor.strides[axis - added]);
  }
  result.contiguous = tensor.contiguous && tensor.shape == shape;
  return result;
}

Dims broadcast_shapes(const Dims& a, const Dims& b, const char* op, const char* names) {
  const int count = a.count > b.count ? a.count : b.count;
  Dims result;
  for (int axis = 0; axis < count; ++axis) {
    const int ia = axis - (count - a.count), ib = axis - (count - b.count);
    const int64_t na = ia < 0 ? 1 : a[ia], nb = ib < 0 ? 1 : b[ib];
    check(na == nb || na == 1 || nb == 1, "{}: {} cannot be broadcast; got {} and {}", op, names, a,
          b);
    result.push(na == 1 ? nb : na);
  }
  check_size(result, op);
  return result;
}

template <class T>
const T* contiguous(Context& context, const Tensor& tensor) {
  if (tensor.contiguous || tensor.size() == 0) return tensor.as<const T>();
  T* copy = context.workspace->take<T>(tensor.size());
  pack(context, copy, tensor.as<const T>(),
       {tensor.shape.count, tensor.shape.value, tensor.strides.value});
  return copy;
}
template const float* contiguous(Context&, const Tensor&);
template const double* contiguous(Context&, const Tensor&);
template const bfloat16* contiguous(Context&, const Tensor&);
#if TILEGRAD_HALF
template const float16* contiguous(Context&, const Tensor&);
#endif

const void* contiguous_bytes(Context& context, const Tensor& tensor) {
  switch (item_size(tensor.dtype)) {
    case 1:
      return contiguous<uint8_t>(context, tensor);
    case 2:
      return contiguous<uint16_t>(context, tensor);
    case 4:
      return contiguous<uint32_t>(context, tensor);
    default:
      return contiguous<uint64_t>(context, tensor);
  }
}

Wanted::Wanted(py::handle wrt, const char* const* names, int count, unsigned default_mask,
               const char* op) {
  const auto add = [&](py::handle item) {
    check_type(py::isinstance<py::str>(item), "{}: wrt must be a name or a tuple of names", op);
    const auto wanted = text_of(item);
    unsigned bit = 1;
    std::string known;
    for (int i = 0; i < count; ++i) {
      if (wanted == names[i]) {
        mask_ |= bit;
        return;
      }
      known += (i == 0 ? "" : ", ") + std::string(names[i]);
      bit *= 2;
    }
    throw std::invalid_argument(format("{}: wrt may name {}; got '{}'", op, known, wanted));
  };
  if (wrt.is_none()) {
    mask_ = default_mask;
    single_ = (mask_ & (mask_ - 1)) == 0;
  } else if (py::isinstance<py::str>(wrt)) {
    add(wrt);
    single_ = true;
  } else {
    check_type(py::isinstance<py::tuple>(wrt) || py::isinstance<py::list>(wrt),
               "{}: wrt must be a name or a tuple of names", op);
    for (py::handle item : wrt) add(item);
    check(mask_ != 0, "{}: wrt must name at least one input", op);
  }
}

py::object Wanted::out(py::handle out, int input, const char* op) const {
  if (out.is_none() || !(*this)[input]) return py::none();
  if (single_) return py::reinterpret_borrow<py::object>(out);
  check_type(py::isinstance<py::tuple>(out), "{}: out must be a tuple, one array for each of wrt",
             op);
  const auto parts = py::reinterpret_borrow<py::tuple>(out);
  check(static_cast<int>(parts.size()) == std::popcount(mask_),
        "{}: out must hold one array for each of wrt; got {} for {}", op, parts.size(),
        std::popcount(mask_));
  return parts[std::popcount(mask_ & ((1u << input) - 1))];
}

py::object Wanted::gather(std::initializer_list<py::object> gradients) const {
  const py::object* gradient = gradients.begin();
  if (single_) return gradient[std::countr_zero(mask_)];
  py::list wanted;
  for (size_t input = 0; input < gradients.size(); ++input) {
    if ((*this)[static_cast<int>(input)]) wanted.append(gradient[input]);
  }
  return py::tuple(wanted);
}

template <class T>
void sum_to_shape(Context& context, T* out, const T* values, const Dims& from, const Dims& to) {
  WorkspaceScope scope(context);
  Dims shape = from;
  const int added = from.count - to.count;
  for (int axis = 0; axis < from.count; ++axis) {
    if (shape[axis] == 1 || (axis >= added && to[axis - added] == shape[axis])) continue;
    const int64_t outer = shape.product(0, axis);
    const int64_t inner = shape.product(axis + 1, shape.count);
    T* partial = context.workspace->take<T>(outer * inner);
    sum_axis(context, partial, values, outer, shape[axis], inner, false);
    values = partial;
    shape[axis] = 1;
  }
  copy_bytes(context, out, values, static_cast<size_t>(to.product()) * sizeof(T));
}
template void sum_to_shape(Context&, float*, const float*, const Dims&, const Dims&);
template void sum_to_shape(Context&, double*, const double*, const Dims&, const Dims&);

std::string text_of(py::handle string) {
  Py_ssize_t size = 0;
  const char* text = PyUnicode_AsUTF8AndSize(string.ptr(), &size);
  if (text != nullptr) return {text, static_cast<size_t>(size)};
  PyErr_Clear();  // half of a surrogate pair has no UTF-8
  return "(no Unicode text)";
}

std::string parse_variant(py::handle object, const char* op) {
  if (object.is_none()) return {};
  if (!py::isinstance<py::str>(object)) {
    throw TypeError(format("{}: variant must be a string or None; got {}", op, type_name(object)));
  }
  auto name = text_of(object);
  check(!name.empty(), "{}: variant must name a kernel; got ''", op);
  return name;
}

Reduction parse_reduction(py::handle object, const char* op) {
  if (!py::isinstance<py::str>(object)) {
    throw TypeError(format("{}: reduction must be a string; got {}", op, type_name(object)));
  }
  const auto name = text_of(object);
  if (name == "mean") return Reduction::mean;
  if (name == "sum") return Reduction::sum;
  check(name == "none", "{}: reduction must be 'none', 'mean' or 'sum'; got '{}'", op, name);
  return Reduction::none;
}

Activation parse_activation(py::handle name, py::handle args, const char* op) {
  if (name.is_none()) {
    check(args.is_none(), "{}: activation_args needs an activation; got activation=None", op);
    return {};
  }
  if (!py::isinstance<py::str>(name)) {
    throw TypeError(format("{}: activation must be a string or None; got {}", op, type_name(name)));
  }
  const auto text = text_of(name);
  for (const NamedActivation& row : kActivations) {
    if (text != row.name) continue;
    Activation result{row.kind, row.alpha.standard, row.beta.standard};
    if (args.is_none()) return result;
    for (const auto& [key, value] : py::cast<py::dict>(args)) {
      const auto option = py::str(key).cast<std::string>();
      const bool is_alpha = row.alpha.name != nullptr && option == row.alpha.name;
      const bool is_beta = row.beta.name != nullptr && option == row.beta.name;
      check(is_alpha || is_beta, "{}: activation '{}' takes {}{}{}; got activation_args['{}']", op,
            text, row.alpha.name == nullptr ? "no arguments" : row.alpha.name,
            row.beta.name == nullptr ? "" : " and ", row.beta.name == nullptr ? "" : row.beta.name,
            option);
      (is_alpha ? result.alpha : result.beta) = parse_number(value, op, option.c_str());
    }
    check_activation(result, op);
    return result;
  }
  throw std::invalid_argument(
      format("{}: activation must be one of identity, sigmoid, tanh, relu, leaky_relu, elu, selu, "
             "gelu, gelu_tanh, silu, softplus, mish, hardtanh, relu6, hardsigmoid, hardswish; got "
             "'{}'",
             op, text));
}

void check_activation(Activation activation, const char* op) {
  if (activation.kind != ActivationKind::hardtanh) return;
  check(!(activation.alpha > activation.beta), "{}: min_val must be at most max_val; got {} and {}",
        op, activation.alpha, activation.beta);
}

int64_t parse_integer(py::handle object, const char* op, const char* name) {
  // Some have __index__ and raise in it: an array of floats, or of several elements.
  const auto index = py::reinterpret_steal<py::object>(PyNumber_Index(object.ptr()));
  if (!index) {
    PyErr_Clear();
    throw TypeError(format("{}: {} must be an integer; got {}", op, name, type_name(object)));
  }
  int overflow = 0;
  const int64_t value = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
  if (overflow != 0) {
    throw std::invalid_argument(
        format("{}: {} must fit 64 bits; got {}", op, name, py::str(index).cast<std::string>()));
  }
  return value;
}

double parse_number(py::handle object, const char* op, const char* name) {
  const double value = PyFloat_AsDouble(object.ptr());
  if (value == -1 && PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    throw TypeError(format("{}: {} must be a number; got {}", op, name, type_name(object)));
  }
  return value;
}

// A bool or another number has a truth value; that of a string or a list would be a surprise.
bool parse_flag(py::handle object, const char* op, const char* name) {
  const PyNumberMethods* methods = Py_TYPE(object.ptr())->tp_as_number;
  const bool has_truth = methods != nullptr && methods->nb_bool != nullptr;
  const int value = has_truth ? PyObject_IsTrue(object.ptr()) : -1;
  if (value < 0) {
    PyErr_Clear();  // of an array with several elements
    throw TypeError(format("{}: {} must be True or False; got {}", op, name, type_name(object)));
  }
  return value == 1;
}

}  // namespace tilegrad::TILEGRAD_BACKEND
