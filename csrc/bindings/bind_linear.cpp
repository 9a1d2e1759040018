// SPDX-License-Identifier: MIT
#include "../activation_slope.hpp"
#include "arrays.hpp"
#include "families.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr double kFlopsANanosecond = 50;

struct Problem {
  Tensor x, weight, bias;
  bool has_bias;
  Dims result;
  LinearSize size;

  Problem(py::handle input, py::handle weight_object, py::handle bias_object, const char* op)
      : x(read_float(input, op, "input", Floats::all)),
        weight(read_like(x, weight_object, op, "weight")),
        has_bias(!bias_object.is_none()) {
    check(x.shape.count >= 1, "{}: input must be (..., in_features); got shape {}", op, x.shape);
    check(weight.shape.count == 2, "{}: weight must be (out_features, in_features); got shape {}",
          op, weight.shape);
    check(x.shape.back() == weight.shape[1],
          "{}: inner sizes differ; input is {}, weight is {} (out_features, in_features)", op,
          x.shape, weight.shape);
    if (has_bias) {
      bias = read_like(x, bias_object, op, "bias");
      check_shape(bias, {weight.shape[0]}, op, "bias");
    }
    result = x.shape.slice(0, x.shape.count - 1);
    size = {result.product(), weight.shape[1], weight.shape[0]};
    result.push(size.out_features);
  }

  double nanoseconds() const {
    return 2.0 * size.rows * size.in_features * size.out_features / kFlopsANanosecond;
  }
};

// linear's out: one array, or with save_preactivation a pair of them.
std::pair<py::object, py::object> split_out(py::handle out, bool pair, const char* op) {
  if (out.is_none()) return {py::none(), py::none()};
  if (!pair) return {py::reinterpret_borrow<py::object>(out), py::none()};
  check_type(py::isinstance<py::tuple>(out) && py::len(out) == 2,
             "{}: with save_preactivation out must be a pair (y, z)", op);
  const auto both = py::reinterpret_borrow<py::tuple>(out);
  return {both[0], both[1]};
}

py::object forward(py::handle input, py::handle weight, py::handle bias, py::handle activation,
                   py::handle activation_args, py::handle save, py::handle out) {
  constexpr const char* kOp = "linear";
  CallContext context;
  const Activation f = parse_activation(activation, activation_args, kOp);
  const bool save_preactivation = parse_flag(save, kOp, "save_preactivation");
  const Problem p(input, weight, bias, kOp);
  const auto [out_y, out_z] = split_out(out, save_preactivation, kOp);
  const Tensor y = make_result(out_y, p.result, p.x.dtype, kOp, {&p.x, &p.weight, &p.bias});
  Tensor z;
  if (save_preactivation) {
    z = make_result(out_z, p.result, p.x.dtype, kOp, {&p.x, &p.weight, &p.bias, &y});
  }
  with_any_float(p.x.dtype, [&](auto t) {
    using T = decltype(t);
    run(p.nanoseconds(), [&] {
      const T* b = p.has_bias ? contiguous<T>(*context, p.bias) : nullptr;
      linear(*context, y.as<T>(), z.as<T>(), contiguous<T>(*context, p.x),
             contiguous<T>(*context, p.weight), b, p.size, f);
    });
  });
  if (!save_preactivation) return y.owner;
  return py::make_tuple(y.owner, z.owner);
}

// dweight and dbias of `accumulate` must be given, since they are added to.
py::object backward(py::handle grad_output, py::handle input, py::handle weight, py::handle bias,
                    py::handle activation, py::handle activation_args, py::handle output,
                    py::handle preactivation, py::handle wrt, py::handle adds, py::handle out) {
  constexpr const char* kOp = "linear_backward";
  CallContext context;
  const Activation f = parse_activation(activation, activation_args, kOp);
  const Wanted wanted(wrt, {"input", "weight", "bias"}, 7, kOp);
  const bool accumulate = parse_flag(adds, kOp, "accumulate");
  const Problem p(input, weight, bias, kOp);
  const Tensor dy = read_like(p.x, grad_output, kOp, "grad_output");
  check_shape(dy, p.result, kOp, "grad_output");

  const auto read_saved = [&](py::handle object, const char* name) {
    if (object.is_none()) return Tensor();
    const Tensor saved = read_like(p.x, object, kOp, name);
    check_shape(saved, p.result, kOp, name);
    return saved;
  };
  const Tensor y = read_saved(output, "output"), z = read_saved(preactivation, "preactivation");
  const bool identity = f.kind == ActivationKind::identity;
  const bool from_output = !identity && y.owner && activation_uses_output(f);
  const bool recompute = !identity && !from_output && !z.owner;
  const Tensor& saved = from_output ? y : z;

  check_type(out.is_none() || (py::isinstance<py::tuple>(out) && py::len(out) == 3),
             "{}: out must be a 3-tuple (dinput, dweight, dbias), None where not given", kOp);
  const bool asked[] = {wanted[0], wanted[1], wanted[2] && p.has_bias};
  const auto given = [&](int i) {
    return out.is_none() ? py::none() : py::object(py::reinterpret_borrow<py::tuple>(out)[i]);
  };
  // Gradients of 16-bit weights may be summed up in float32: where out has one such, both are.
  DType gradients = p.x.dtype;
  for (int i = 1; i < 3 && is_half(p.x.dtype); ++i) {
    const bool has_one = asked[i] && !given(i).is_none();
    if (has_one && read(given(i), kOp, "out").dtype == DType::float32) gradients = DType::float32;
  }
  Tensor dx, dw, db;
  const auto result = [&](int i, const Dims& shape, DType dtype, bool added_to) {
    if (!asked[i]) return Tensor();
    check(!added_to || !given(i).is_none(),
          "{}: accumulate adds to dweight and dbias; give both in out", kOp);
    return make_result(given(i), shape, dtype, kOp,
                       {&dy, &p.x, &p.weight, &p.bias, &y, &z, &dx, &dw});
  };
  dx = result(0, p.x.shape, p.x.dtype, false);
  dw = result(1, p.weight.shape, gradients, accumulate);
  db = result(2, {p.size.out_features}, gradients, accumulate);

  with_any_float(p.x.dtype, [&](auto t) {
    using T = decltype(t);
    run(2 * p.nanoseconds(), [&] {
      const T* x = contiguous<T>(*context, p.x);
      const T* w = contiguous<T>(*context, p.weight);
      const T* grad = contiguous<T>(*context, dy);
      const T* kept = identity || recompute ? nullptr : contiguous<T>(*context, saved);
      if (recompute) {
        const T* b = p.has_bias ? contiguous<T>(*context, p.bias) : nullptr;
        T* z = (*context).workspace->take<T>(p.result.product());
        linear(*context, z, static_cast<T*>(nullptr), x, w, b, p.size, Activation{});
        kept = z;
      }
      const auto differentiate = [&](auto* dweight, auto* dbias) {
        linear_backward(*context, dx.as<T>(), dweight, dbias, grad, x, w, kept, from_output, p.size,
                        f, accumulate);
      };
      if constexpr (sizeof(T) == 2) {
        if (gradients == DType::float32) return differentiate(dw.as<float>(), db.as<float>());
      }
      differentiate(dw.as<T>(), db.as<T>());
    });
  });
  const auto owner = [](const Tensor& t) { return t.owner ? t.owner : py::object(py::none()); };
  return py::make_tuple(owner(dx), owner(dw), owner(db));
}

}  // namespace

void bind_linear(py::module_& m) {
  m.def("linear", &forward, py::arg("input"), py::arg("weight"), py::arg("bias"),
        py::arg("activation"), py::arg("activation_args"), py::arg("save_preactivation"),
        py::arg("out"));
  m.def("linear_backward", &backward, py::arg("grad_output"), py::arg("input"), py::arg("weight"),
        py::arg("bias"), py::arg("activation"), py::arg("activation_args"), py::arg("output"),
        py::arg("preactivation"), py::arg("wrt"), py::arg("accumulate"), py::arg("out"));
  m.def(
      "activation_uses_output",
      [](py::handle activation, py::handle args) {
        return activation_uses_output(parse_activation(activation, args, "linear"));
      },
      py::arg("activation"), py::arg("activation_args"));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
