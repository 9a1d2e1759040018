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

// Forward and backward are the same map: the mask depends on seed and offset only.
void apply_mask(Context& context, const Tensor& y, const Tensor& x, double p, uint64_t seed,
                uint64_t offset) {
  StepBuffer state;
  state.set(&StepState::seed, seed);
  state.set(&StepState::offset, offset);
  state.upload(context);
  with_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    run(elementwise_nanoseconds(x), [&] {
      dropout(context, y.as<T>(), contiguous<T>(context, x), x.size(), p, 0, state.memory());
    });
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

}  // namespace

void bind_dropout(py::module_& m) {
  m.def("dropout", &forward, py::arg("input"), py::arg("p"), py::arg("seed"), py::arg("offset"),
        py::arg("out"));
  m.def("dropout_backward", &backward, py::arg("grad_output"), py::arg("input"), py::arg("p"),
        py::arg("seed"), py::arg("offset"), py::arg("wrt"), py::arg("out"));
  m.def(
      "random_uniform",
      [](py::handle shape, bool is_double, double low, double high, uint64_t seed,
         uint64_t offset) {
        Dims dims;
        for (py::handle size : shape) dims.push(size.cast<int64_t>());
        CallContext context;
        const DType dtype = is_double ? DType::float64 : DType::float32;
        const Tensor y = empty(dims, dtype, "random_uniform");
        with_float(dtype, [&](auto t) {
          run(elementwise_nanoseconds(y), [&] {
            random_uniform(*context, y.as<decltype(t)>(), y.size(), low, high, seed, offset);
          });
        });
        return y.owner;
      },
      py::arg("shape"), py::arg("is_double"), py::arg("low"), py::arg("high"), py::arg("seed"),
      py::arg("offset"));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
