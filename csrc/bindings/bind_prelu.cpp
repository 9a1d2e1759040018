// SPDX-License-Identifier: MIT
#include "arrays.hpp"
#include "families.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

struct Problem {
  Tensor x, weight;
  ClassShape shape;

  Problem(py::handle input, py::handle weight_object, const char* op)
      : x(read_float(input, op, "input", Floats::all)),
        weight(read_like(x, weight_object, op, "weight")) {
    const int count = x.shape.count;
    const int64_t channels = weight.size();
    check(weight.shape.count <= 1,
          "{}: weight must be one number or a vector of a slope for each channel; got shape {}", op,
          weight.shape);
    const int64_t expected = count < 2 ? 1 : x.shape[1];
    check(channels == 1 || channels == expected,
          "{}: weight must have 1 element or {}, one for each channel of input {}; got shape {}",
          op, expected, x.shape, weight.shape);
    shape = channels == 1 ? ClassShape{1, 1, x.size()}
                          : ClassShape{x.shape[0], channels, x.shape.product(2, count)};
  }
};

py::object forward(py::handle input, py::handle weight, py::handle out) {
  constexpr const char* kOp = "prelu";
  CallContext context;
  const Problem p(input, weight, kOp);
  const Tensor y = make_result(out, p.x.shape, p.x.dtype, kOp, {&p.x, &p.weight}, true);
  with_any_float(p.x.dtype, [&](auto t) {
    using T = decltype(t);
    run(elementwise_nanoseconds(p.x), [&] {
      prelu(*context, y.as<T>(), contiguous<T>(*context, p.x), contiguous<T>(*context, p.weight),
            p.shape);
    });
  });
  return y.owner;
}

// accumulate adds to the weight's gradient, which is then given in out. That of 16-bit weights may
// be float32.
py::object backward(py::handle grad_output, py::handle input, py::handle weight, py::handle wrt,
                    bool accumulate, py::handle out) {
  constexpr const char* kOp = "prelu_backward";
  CallContext context;
  const Wanted wanted(wrt, {"input", "weight"}, 3, kOp);
  const Problem p(input, weight, kOp);
  const Tensor dy = read_like(p.x, grad_output, kOp, "grad_output");
  check_shape(dy, p.x.shape, kOp, "grad_output");
  Tensor dx, dw;
  if (wanted[0]) {
    dx = make_result(wanted.out(out, 0, kOp), p.x.shape, p.x.dtype, kOp, {&dy, &p.x, &p.weight},
                     true);
  }
  if (wanted[1]) {
    const py::object given = wanted.out(out, 1, kOp);
    const bool sums =
        is_half(p.x.dtype) && !given.is_none() && read(given, kOp, "out").dtype == DType::float32;
    dw = make_result(given, p.weight.shape, sums ? DType::float32 : p.x.dtype, kOp,
                     {&dy, &p.x, &p.weight, &dx});
  }
  with_any_float(p.x.dtype, [&](auto t) {
    using T = decltype(t);
    run(2 * elementwise_nanoseconds(p.x), [&] {
      const auto differentiate = [&](auto* dweight) {
        prelu_backward(*context, dx.as<T>(), dweight, contiguous<T>(*context, dy),
                       contiguous<T>(*context, p.x), contiguous<T>(*context, p.weight), p.shape,
                       accumulate);
      };
      if constexpr (sizeof(T) == 2) {
        if (dw.dtype == DType::float32) return differentiate(dw.as<float>());
      }
      differentiate(dw.as<T>());
    });
  });
  return wanted.gather({dx.owner, dw.owner});
}

}  // namespace

void bind_prelu(py::module_& m) {
  m.def("prelu", &forward, py::arg("input"), py::arg("weight"), py::arg("out"));
  m.def("prelu_backward", &backward, py::arg("grad_output"), py::arg("input"), py::arg("weight"),
        py::arg("wrt"), py::arg("accumulate"), py::arg("out"));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
