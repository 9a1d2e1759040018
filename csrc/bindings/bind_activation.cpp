// SPDX-License-Identifier: MIT
#include "../activation_slope.hpp"
#include "arrays.hpp"
#include "families.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

py::object forward(const char* op, Activation f, py::handle input, py::handle out) {
  CallContext context;
  const Tensor x = read_float(input, op, "input", Floats::all);
  const Tensor y = make_result(out, x.shape, x.dtype, op, {&x}, true);
  with_any_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    run(elementwise_nanoseconds(x),
        [&] { activation(*context, y.as<T>(), contiguous<T>(*context, x), x.size(), f); });
  });
  return y.owner;
}

py::object backward(const char* op, Activation f, py::handle grad_output, py::handle input,
                    py::handle output, py::handle wrt, py::handle out) {
  CallContext context;
  const Wanted wanted(wrt, {"input"}, 1, op);
  const Tensor x = read_float(input, op, "input", Floats::all);
  const Tensor dy = read_like(x, grad_output, op, "grad_output");
  check_shape(dy, x.shape, op, "grad_output");
  Tensor y;
  if (!output.is_none()) {
    y = read_like(x, output, op, "output");
    check_shape(y, x.shape, op, "output");
  }
  const bool from_output = y.data != nullptr && activation_uses_output(f);
  const Tensor dx = make_result(wanted.out(out, 0, op), x.shape, x.dtype, op, {&dy, &x, &y}, true);
  with_any_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    run(elementwise_nanoseconds(x), [&] {
      activation_backward(*context, dx.as<T>(), contiguous<T>(*context, dy),
                          contiguous<T>(*context, from_output ? y : x), from_output, x.size(), f);
    });
  });
  return wanted.gather({dx.owner});
}

// One row an activation: the names in the module, and how errors call them.
struct Row {
  const char* name;
  const char* backward_name;
  ActivationKind kind;
  const char* op;
  const char* backward_op;
};
constexpr Row row(const char* name, const char* backward_name, ActivationKind kind) {
  return {name, backward_name, kind, name, backward_name};
}
constexpr Row kPlain[] = {
    row("identity", "identity_backward", ActivationKind::identity),
    row("sigmoid", "sigmoid_backward", ActivationKind::sigmoid),
    row("tanh", "tanh_backward", ActivationKind::tanh),
    row("relu", "relu_backward", ActivationKind::relu),
    row("selu", "selu_backward", ActivationKind::selu),
    row("gelu", "gelu_backward", ActivationKind::gelu),
    {"gelu_tanh", "gelu_tanh_backward", ActivationKind::gelu_tanh, "gelu", "gelu_backward"},
    row("silu", "silu_backward", ActivationKind::silu),
    row("mish", "mish_backward", ActivationKind::mish),
    row("relu6", "relu6_backward", ActivationKind::relu6),
    row("hardsigmoid", "hardsigmoid_backward", ActivationKind::hardsigmoid),
    row("hardswish", "hardswish_backward", ActivationKind::hardswish),
};
// With an option or two; their names are for errors.
struct OptionRow : Row {
  const char* option;
};
constexpr OptionRow kWithAlpha[] = {
    {row("leaky_relu", "leaky_relu_backward", ActivationKind::leaky_relu), "negative_slope"},
    {row("elu", "elu_backward", ActivationKind::elu), "alpha"},
};
struct PairRow : Row {
  const char* options[2];

  Activation parse(py::handle alpha, py::handle beta, const char* op) const {
    const Activation f{kind, parse_number(alpha, op, options[0]),
                       parse_number(beta, op, options[1])};
    check_activation(f, op);
    return f;
  }
};
constexpr PairRow kWithAlphaAndBeta[] = {
    {row("softplus", "softplus_backward", ActivationKind::softplus), {"beta", "threshold"}},
    {row("hardtanh", "hardtanh_backward", ActivationKind::hardtanh), {"min_val", "max_val"}},
};

}  // namespace

void bind_activation(py::module_& m) {
  for (const Row& row : kPlain) {
    m.def(
        row.name,
        [row](py::handle input, py::handle out) { return forward(row.op, {row.kind}, input, out); },
        py::arg("input"), py::arg("out"));
    m.def(
        row.backward_name,
        [row](py::handle grad_output, py::handle input, py::handle output, py::handle wrt,
              py::handle out) {
          return backward(row.backward_op, {row.kind}, grad_output, input, output, wrt, out);
        },
        py::arg("grad_output"), py::arg("input"), py::arg("output"), py::arg("wrt"),
        py::arg("out"));
  }
  for (const OptionRow& row : kWithAlpha) {
    m.def(
        row.name,
        [row](py::handle input, py::handle alpha, py::handle out) {
          const double value = parse_number(alpha, row.op, row.option);
          return forward(row.op, {row.kind, value}, input, out);
        },
        py::arg("input"), py::arg("alpha"), py::arg("out"));
    m.def(
        row.backward_name,
        [row](py::handle grad_output, py::handle input, py::handle alpha, py::handle output,
              py::handle wrt, py::handle out) {
          const double value = parse_number(alpha, row.backward_op, row.option);
          return backward(row.backward_op, {row.kind, value}, grad_output, input, output, wrt, out);
        },
        py::arg("grad_output"), py::arg("input"), py::arg("alpha"), py::arg("output"),
        py::arg("wrt"), py::arg("out"));
  }
  for (const PairRow& row : kWithAlphaAndBeta) {
    m.def(
        row.name,
        [row](py::handle input, py::handle alpha, py::handle beta, py::handle out) {
          return forward(row.op, row.parse(alpha, beta, row.op), input, out);
        },
        py::arg("input"), py::arg("alpha"), py::arg("beta"), py::arg("out"));
    m.def(
        row.backward_name,
        [row](py::handle grad_output, py::handle input, py::handle alpha, py::handle beta,
              py::handle output, py::handle wrt, py::handle out) {
          const Activation f = row.parse(alpha, beta, row.backward_op);
          return backward(row.backward_op, f, grad_output, input, output, wrt, out);
        },
        py::arg("grad_output"), py::arg("input"), py::arg("alpha"), py::arg("beta"),
        py::arg("output"), py::arg("wrt"), py::arg("out"));
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
