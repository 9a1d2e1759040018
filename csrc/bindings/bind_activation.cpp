// SPDX-License-Identifier: MIT
#include "arrays.hpp"
#include "families.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr double kNanosecondsAnElement = 0.2;

py::object forward(const char* op, Activation f, py::handle input, py::handle out) {
  CallContext context;
  const Tensor x = read_float(input, op, "input");
  const Tensor y = make_result(out, x.shape, x.dtype, op, {&x}, true);
  with_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    const T* from = contiguous<T>(*context, x);
    const int64_t n = x.size();
    run(n * kNanosecondsAnElement, [&] { activation(*context, y.as<T>(), from, n, f); });
  });
  return y.owner;
}

py::object backward(const char* op, Activation f, py::handle grad_output, py::handle input,
                    py::handle output, py::handle out) {
  CallContext context;
  const Tensor x = read_float(input, op, "input");
  const Tensor dy = read_like(x, grad_output, op, "grad_output");
  check_shape(dy, x.shape, op, "grad_output");
  const bool from_output = !output.is_none() && activation_uses_output(f);
  const Tensor saved = from_output ? read_like(x, output, op, "output") : x;
  check_shape(saved, x.shape, op, "output");
  const Tensor dx = make_result(out, x.shape, x.dtype, op, {&dy, &saved}, true);
  with_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    const T* grad = contiguous<T>(*context, dy);
    const T* from = contiguous<T>(*context, saved);
    const int64_t n = x.size();
    run(n * kNanosecondsAnElement,
        [&] { activation_backward(*context, dx.as<T>(), grad, from, from_output, n, f); });
  });
  return dx.owner;
}

struct Row {
  const char* name;
  const char* backward_name;
  ActivationKind kind;
};
// One row an activation; those of the second table take an option (alpha).
constexpr Row kPlain[] = {
    {"identity", "identity_backward", ActivationKind::identity},
    {"sigmoid", "sigmoid_backward", ActivationKind::sigmoid},
    {"tanh", "tanh_backward", ActivationKind::tanh},
    {"relu", "relu_backward", ActivationKind::relu},
    {"selu", "selu_backward", ActivationKind::selu},
    {"gelu", "gelu_backward", ActivationKind::gelu},
    {"gelu_tanh", "gelu_tanh_backward", ActivationKind::gelu_tanh},
    {"silu", "silu_backward", ActivationKind::silu},
};
constexpr Row kWithAlpha[] = {
    {"leaky_relu", "leaky_relu_backward", ActivationKind::leaky_relu},
    {"elu", "elu_backward", ActivationKind::elu},
};

}  // namespace

void bind_activation(py::module_& m) {
  for (const Row& row : kPlain) {
    m.def(
        row.name,
        [row](py::handle input, py::handle out) {
          return forward(row.name, {row.kind}, input, out);
        },
        py::arg("input"), py::arg("out"));
    m.def(
        row.backward_name,
        [row](py::handle grad_output, py::handle input, py::handle output, py::handle out) {
          return backward(row.backward_name, {row.kind}, grad_output, input, output, out);
        },
        py::arg("grad_output"), py::arg("input"), py::arg("output"), py::arg("out"));
  }
  for (const Row& row : kWithAlpha) {
    m.def(
        row.name,
        [row](py::handle input, double alpha, py::handle out) {
          return forward(row.name, {row.kind, alpha}, input, out);
        },
        py::arg("input"), py::arg("alpha"), py::arg("out"));
    m.def(
        row.backward_name,
        [row](py::handle grad_output, py::handle input, double alpha, py::handle output,
              py::handle out) {
          return backward(row.backward_name, {row.kind, alpha}, grad_output, input, output, out);
        },
        py::arg("grad_output"), py::arg("input"), py::arg("alpha"), py::arg("output"),
        py::arg("out"));
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
