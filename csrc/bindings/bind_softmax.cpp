// SPDX-License-Identifier: MIT
#include "arrays.hpp"
#include "families.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

ClassShape class_shape(const Tensor& x, py::handle axis_object, const char* op) {
  const int64_t dim = parse_integer(axis_object, op, "dim");
  const int64_t count = x.shape.count;
  if (count == 0 && (dim == 0 || dim == -1)) return {1, 1, 1};  // torch: a 0-d input is one class
  check(dim >= -count && dim < count, "{}: dim must be in [{}, {}]; got {}", op,
        count == 0 ? -1 : -count, count == 0 ? 0 : count - 1, dim);
  const int axis = static_cast<int>(dim < 0 ? dim + count : dim);
  return {x.shape.product(0, axis), x.shape[axis],
          x.shape.product(axis + 1, static_cast<int>(count))};
}

py::object forward(const char* op, bool log, py::handle input, py::handle dim, py::handle out) {
  CallContext context;
  const Tensor x = read_float(input, op, "input", Floats::all);
  const ClassShape shape = class_shape(x, dim, op);
  const Tensor y = make_result(out, x.shape, x.dtype, op, {&x}, true);
  with_any_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    run(elementwise_nanoseconds(x),
        [&] { softmax(*context, y.as<T>(), contiguous<T>(*context, x), shape, log); });
  });
  return y.owner;
}

py::object backward(const char* op, bool log, py::handle grad_output, py::handle input,
                    py::handle dim, py::handle output, py::handle wrt, py::handle out) {
  CallContext context;
  const Wanted wanted(wrt, {"input"}, 1, op);
  const Tensor x = read_float(input, op, "input", Floats::all);
  const Tensor dy = read_like(x, grad_output, op, "grad_output");
  check_shape(dy, x.shape, op, "grad_output");
  const ClassShape shape = class_shape(x, dim, op);
  const bool has_output = !output.is_none();
  const Tensor y = has_output ? read_like(x, output, op, "output") : x;
  check_shape(y, x.shape, op, "output");
  const Tensor dx = make_result(wanted.out(out, 0, op), x.shape, x.dtype, op, {&dy, &x, &y}, true);
  with_any_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    run(elementwise_nanoseconds(x), [&] {
      const T* grad = contiguous<T>(*context, dy);
      const T* result = contiguous<T>(*context, y);
      if (!has_output) {
        T* recomputed = (*context).workspace->template take<T>(x.size());
        softmax(*context, recomputed, result, shape, log);
        result = recomputed;
      }
      softmax_backward(*context, dx.as<T>(), grad, result, shape, log);
    });
  });
  return wanted.gather({dx.owner});
}

struct Row {
  const char* name;
  const char* backward_name;
  bool log;
};
constexpr Row kRows[] = {{"softmax", "softmax_backward", false},
                         {"log_softmax", "log_softmax_backward", true}};

}  // namespace

void bind_softmax(py::module_& m) {
  for (const Row& row : kRows) {
    m.def(
        row.name,
        [row](py::handle input, py::handle dim, py::handle out) {
          return forward(row.name, row.log, input, dim, out);
        },
        py::arg("input"), py::arg("dim"), py::arg("out"));
    m.def(
        row.backward_name,
        [row](py::handle grad_output, py::handle input, py::handle dim, py::handle output,
              py::handle wrt, py::handle out) {
          return backward(row.backward_name, row.log, grad_output, input, dim, output, wrt, out);
        },
        py::arg("grad_output"), py::arg("input"), py::arg("dim"), py::arg("output"), py::arg("wrt"),
        py::arg("out"));
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
