// SPDX-License-Identifier: MIT
// The border between Python arrays and the pointers of ops.hpp. A binding reads its operands,
// checks them, makes its results and calls the op; how an array of this backend is read and made
// stands in a folder of its own (host/: NumPy; device/: tilegrad.Array), chosen by the build.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <string>
#include <utility>

#include "../check.hpp"
#include "../ops.hpp"
#include "gil.hpp"
#include "traits.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

namespace py = pybind11;

enum class DType : uint8_t {
  float32,
  float64,
  bfloat16,
  float16,
  boolean,
  int8,
  int16,
  int32,
  int64,
  uint8,
  uint16,
  uint32,
  uint64,
  other
};
const char* dtype_name(DType dtype);
std::string dtype_text(py::handle array);  // of any array, known here or not
std::string type_name(py::handle object);
int64_t item_size(DType dtype);
inline bool is_float(DType d) { return d == DType::float32 || d == DType::float64; }
inline bool is_half(DType d) { return d == DType::bfloat16 || d == DType::float16; }
inline bool is_integer(DType d) { return d >= DType::int8 && d <= DType::uint64; }

// Sizes or strides of up to 32 axes.
struct Dims {
  static constexpr int kMax = 32;
  int count = 0;
  int64_t value[kMax];  // left uninitialised: most arrays have two axes

  Dims() {}
  Dims(std::initializer_list<int64_t> values) {
    for (int64_t v : values) push(v);
  }
  void push(int64_t v) {
    check(count < kMax, "an array may have at most {} axes", kMax);
    value[count++] = v;
  }
  int64_t& operator[](int axis) { return value[axis]; }
  int64_t operator[](int axis) const { return value[axis]; }
  int64_t back() const { return value[count - 1]; }
  int64_t product(int begin, int end) const {
    int64_t result = 1;
    for (int axis = begin; axis < end; ++axis) result *= value[axis];
    return result;
  }
  int64_t product() const { return product(0, count); }
  Dims slice(int begin, int end) const {
    Dims result;
    for (int axis = begin; axis < end; ++axis) result.push(value[axis]);
    return result;
  }
  bool operator==(const Dims& other) const {
    if (count != other.count) return false;
    for (int axis = 0; axis < count; ++axis) {
      if (value[axis] != other.value[axis]) return false;
    }
    return true;
  }
};
std::ostream& operator<<(std::ostream& out, const Dims& dims);  // (2, 3)

// A view of an array, and the Python object that it is.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::other;
  bool contiguous = true;
  int place = 0;  // the device's number, where the backend has several
  Dims shape;
  Dims strides;  // in elements
  py::object owner;
  py::object keep;  // what a foreign array's memory is borrowed through, if anything

  int64_t size() const { return shape.product(); }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

// Reads an operand; TypeError for what is no array of this backend, is misaligned, byte-swapped or
// masked, and on a device for other memory than C-contiguous unless `strided`.
Tensor read(py::handle object, const char* op, const char* name, bool strided = false);
// The same for an operand of floats, where some ops take those of 16 bits too, and for one of the
// same dtype as `like`.
enum class Floats : bool { wide, all };
Tensor read_float(py::handle object, const char* op, const char* name, Floats floats = Floats::wide,
                  bool strided = false);
Tensor read_like(const Tensor& like, py::handle object, const char* op, const char* name,
                 bool strided = false);
// The grad_output of a result of this shape. That of a full reduction, (), may be any array of one
// element, a NumPy scalar or a Python number.
Tensor read_grad_output(Context& context, const Tensor& like, py::handle object, const Dims& shape,
                        const char* op);
// A Python number or a NumPy scalar where the backend's arrays are not NumPy's.
bool is_scalar(py::handle object);

inline void check_shape(const Tensor& tensor, const Dims& shape, const char* op, const char* name) {
  check(tensor.shape == shape, "{}: {} must have shape {}; got {}", op, name, shape, tensor.shape);
}

// The view with its axes broadcast to a shape (strides of zero); the shapes must be compatible.
Tensor broadcast_to(const Tensor& tensor, const Dims& shape);
// ValueError unless an array of this shape could lie in memory, whatever its dtype.
void check_size(const Dims& shape, const char* op);
// The shape that NumPy's rules give two operands; ValueError if there is none.
Dims broadcast_shapes(const Dims& a, const Dims& b, const char* op, const char* names);

// The elements in C order: the array's own memory if it is contiguous, else a copy in workspace.
template <class T>
const T* contiguous(Context& context, const Tensor& tensor);
const void* contiguous_bytes(Context& context, const Tensor& tensor);  // of any dtype

// Where an op writes: a new array, or `out` once it is checked (shape, dtype, contiguous,
// writable). No operand may overlap `out`, except exactly coincide with it where may_be_input.
Tensor make_result(py::handle out, const Dims& shape, DType dtype, const char* op,
                   std::initializer_list<const Tensor*> operands, bool may_be_input = false);
Tensor empty(const Dims& shape, DType dtype, const char* op);
// What a function returns for a new result: the array, or a scalar if it has no axes.
py::object scalar_result(const Tensor& tensor);
inline py::object scalar_or_array(const Tensor& tensor) {
  return tensor.shape.count == 0 ? scalar_result(tensor) : tensor.owner;
}

// A rough price of an elementwise op, for the decision whether to release the GIL.
inline double elementwise_nanoseconds(const Tensor& tensor) {
  const double one = tensor.dtype == DType::float64 ? 5 : 0.5;  // an exp; float64 calls libm
  return one * static_cast<double>(tensor.size());
}

// Calls f(T{}) with the C++ type of a floating dtype.
template <class F>
decltype(auto) with_float(DType dtype, F&& f) {
  return dtype == DType::float64 ? f(double{}) : f(float{});
}
// The same for ops that take 16-bit floats, where the backend has them.
template <class F>
decltype(auto) with_any_float(DType dtype, F&& f) {
  if constexpr (kHasBfloat16) {
    if (dtype == DType::bfloat16) return f(bfloat16{});
  }
  if constexpr (kHasFloat16) {
    if (dtype == DType::float16) return f(float16{});
  }
  return with_float(dtype, f);
}

// Copies bytes from one array of the backend to another.
void copy_bytes(Context& context, void* out, const void* from, size_t bytes);

// Runs native work of about `nanoseconds`, with the GIL released where that is worth its price.
template <class F>
void run(double nanoseconds, F&& f) {
  if (nanoseconds < 10000) return f();
  const WithoutGil released;
  f();
}

int64_t release_pool();  // frees what the allocator keeps; returns the bytes

// Which inputs' gradients are wanted, and how they are returned: one name gives one array, several
// names a tuple. names are in input order; `wrt` is None (the default names), a name or several.
class Wanted {
 public:
  Wanted(py::handle wrt, std::initializer_list<const char*> names, unsigned default_mask,
         const char* op)
      : Wanted(wrt, names.begin(), static_cast<int>(names.size()), default_mask, op) {}
  Wanted(py::handle wrt, const char* const* names, int count, unsigned default_mask,
         const char* op);
  bool operator[](int input) const { return (mask_ >> input & 1) != 0; }
  // The part of `out` for an input: None, out itself, or its element of the tuple.
  py::object out(py::handle out, int input, const char* op) const;
  py::object gather(std::initializer_list<py::object> gradients) const;

 private:
  unsigned mask_ = 0;
  bool single_ = false;
};

// Adds a contiguous array of shape `from` up along the axes in which `to` was broadcast to it.
template <class T>
void sum_to_shape(Context& context, T* out, const T* values, const Dims& from, const Dims& to);

// Options that arrive as strings, and the text of one.
std::string text_of(py::handle string);
std::string parse_variant(py::handle name, const char* op);  // None: empty
Reduction parse_reduction(py::handle name, const char* op);
double parse_number(py::handle object, const char* op, const char* name);
int64_t parse_integer(py::handle object, const char* op, const char* name);
bool parse_flag(py::handle object, const char* op, const char* name);
Activation parse_activation(py::handle name, py::handle args, const char* op);
void check_activation(Activation activation, const char* op);

}  // namespace tilegrad::TILEGRAD_BACKEND
