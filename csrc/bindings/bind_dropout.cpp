// SPDX-License-Identifier: MIT
#include "arrays.hpp"
#include "families.hpp"
#include "step_buffer.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

double probability(py::handle object, const char* op) {
  const double p = parse_number(object, op, "p");
  check(p >= 0 && p <= 1, "{}: p must be a probability in [0, 1]; got {}", op, p);
  return p;
}

// Forward and backward are the same map: the mask depends on seed and offset only. call(y, x,
// state) runs it.
template <class Call>
void apply_mask(Context& context, const Tensor& y, const Tensor& x, uint64_t seed, uint64_t offset,
                Call call) {
  StepBuffer state;
  state.set(&StepState::seed, seed);
  state.set(&StepState::offset, offset);
  state.upload(context);
  with_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    run(elementwise_nanoseconds(x),
        [&] { call(y.as<T>(), contiguous<T>(context, x), state.memory()); });
  });
}

void apply_mask(Context& context, const Tensor& y, const Tensor& x, double p, uint64_t seed,
                uint64_t offset) {
  apply_mask(context, y, x, seed, offset, [&](auto* to, const auto* from, const StepState* state) {
    dropout(context, to, from, x.size(), p, 0, state);
  });
}

py::object forward(py::handle input, py::handle p, uint64_t seed, uint64_t offset, py::handle out) {
  constexpr const char* kOp = "dropout";
  CallContext context;
  const Tensor x = read_float(input, kOp, "input");
  const Tensor y = make_result(out, x.shape, x.dtype, kOp, {&x}, true);
  apply_mask(*context, y, x, probability(p, kOp), seed, offset);
  return y.owner;
}

// Of the input only shape and dtype count.
py::object backward(py::handle grad_output, py::handle input, py::handle p, uint64_t seed,
                    uint64_t offset, py::handle wrt, py::handle out) {
  constexpr const char* kOp = "dropout_backward";
  CallContext context;
  const Wanted wanted(wrt, {"input"}, 1, kOp);
  const Tensor x = read_float(input, kOp, "input");
  const Tensor dy = read_like(x, grad_output, kOp, "grad_output");
  check_shape(dy, x.shape, kOp, "grad_output");
  const Tensor dx = make_result(wanted.out(out, 0, kOp), x.shape, x.dtype, kOp, {&dy, &x}, true);
  apply_mask(*context, dx, dy, probability(p, kOp), seed, offset);
  return wanted.gather({dx.owner});
}

// Of a batch that is shared out over processes: row r of x is row first + r step of the whole.
// Forward and backward.
py::object rows(py::handle input, py::handle p, uint64_t seed, uint64_t offset, int64_t first,
                int64_t step) {
  constexpr const char* kOp = "dropout";
  CallContext context;
  const Tensor x = read_float(input, kOp, "input");
  const Tensor y = empty(x.shape, x.dtype, kOp);
  const double share = probability(p, kOp);
  const int64_t size = x.shape.product(1, x.shape.count);
  apply_mask(*context, y, x, seed, offset, [&](auto* to, const auto* from, const StepState* state) {
    dropout_rows(*context, to, from, x.shape[0], size, first, step, share, 0, state);
  });
  return y.owner;
}

// fill(context, y, n) writes the values of a new array.
template <class Fill>
py::object drawn(py::handle shape, bool is_double, const char* op, Fill fill) {
  Dims dims;
  for (py::handle size : shape) dims.push(size.cast<int64_t>());
  CallContext context;
  const DType dtype = is_double ? DType::float64 : DType::float32;
  const Tensor y = empty(dims, dtype, op);
  with_float(dtype, [&](auto t) {
    run(elementwise_nanoseconds(y), [&] { fill(*context, y.as<decltype(t)>(), y.size()); });
  });
  return y.owner;
}

py::object uniform(py::handle shape, bool is_double, double low, double high, uint64_t seed,
                   uint64_t offset) {
  return drawn(shape, is_double, "random_uniform", [&](Context& context, auto* y, int64_t n) {
    random_uniform(context, y, n, low, high, seed, offset);
  });
}

py::object normal(py::handle shape, bool is_double, double mean, double std, uint64_t seed,
                  uint64_t offset) {
  return drawn(shape, is_double, "random_normal", [&](Context& context, auto* y, int64_t n) {
    random_normal(context, y, n, mean, std, seed, offset);
  });
}

}  // namespace

void bind_dropout(py::module_& m) {
  m.def("dropout", &forward, py::arg("input"), py::arg("p"), py::arg("seed"), py::arg("offset"),
        py::arg("out"));
  m.def("dropout_backward", &backward, py::arg("grad_output"), py::arg("input"), py::arg("p"),
        py::arg("seed"), py::arg("offset"), py::arg("wrt"), py::arg("out"));
  m.def("dropout_rows", &rows, py::arg("input"), py::arg("p"), py::arg("seed"), py::arg("offset"),
        py::arg("first"), py::arg("step"));
  m.def("random_uniform", &uniform, py::arg("shape"), py::arg("is_double"), py::arg("low"),
        py::arg("high"), py::arg("seed"), py::arg("offset"));
  m.def("random_normal", &normal, py::arg("shape"), py::arg("is_double"), py::arg("mean"),
        py::arg("std"), py::arg("seed"), py::arg("offset"));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
