// SPDX-License-Identifier: MIT
#include "../ops_mlp.hpp"
#include "arrays.hpp"
#include "families.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr double kFlopsANanosecond = 50;

std::string layer_name(const char* name, int l) { return format("{}[{}]", name, l); }

// The entries of a list or tuple of one array for each layer.
int count_layers(py::handle sequence, const char* op, const char* name) {
  if (!py::isinstance<py::tuple>(sequence) && !py::isinstance<py::list>(sequence)) {
    throw TypeError(format("{}: {} must be a list or tuple of one array for each layer; got {}", op,
                           name, type_name(sequence)));
  }
  return static_cast<int>(py::len(sequence));
}
py::object at(py::handle sequence, int l) { return py::object(sequence[py::int_(l)]); }

struct Problem {
  Tensor x, weight[kMlpLayers], bias[kMlpLayers];
  Dims result;
  MlpShape shape{};

  Problem(py::handle input, py::handle weights, py::handle biases, const Activation& hidden,
          const Activation& output, const char* op)
      : x(read_float(input, op, "input", Floats::all)) {
    check(x.shape.count >= 1, "{}: input must be (..., in_features); got shape {}", op, x.shape);
    const int layers = count_layers(weights, op, "weights");
    check(layers >= 1 && layers <= kMlpLayers, "{}: weights must be of 1 to {} layers; got {}", op,
          kMlpLayers, layers);
    if (!biases.is_none()) {
      const int count = count_layers(biases, op, "biases");
      check(count == layers, "{}: biases must be as many as weights, {}; got {}", op, layers,
            count);
    }
    shape.layers = layers;
    shape.hidden = hidden;
    shape.output = output;
    shape.features[0] = x.shape.back();
    for (int l = 0; l < layers; ++l) {
      const std::string name = layer_name("weights", l);
      weight[l] = read_like(x, at(weights, l), op, name.c_str());
      check(weight[l].shape.count == 2, "{}: {} must be (out_features, in_features); got shape {}",
            op, name, weight[l].shape);
      const Dims& before = l == 0 ? x.shape : weight[l - 1].shape;
      const std::string from = l == 0 ? "input" : layer_name("weights", l - 1);
      check(weight[l].shape[1] == shape.features[l],
            "{}: inner sizes differ; {} is {}, {} is {} (out_features, in_features)", op, from,
            before, name, weight[l].shape);
      shape.features[l + 1] = weight[l].shape[0];
      if (biases.is_none() || at(biases, l).is_none()) continue;
      const std::string bias_name = layer_name("biases", l);
      bias[l] = read_like(x, at(biases, l), op, bias_name.c_str());
      check_shape(bias[l], {weight[l].shape[0]}, op, bias_name.c_str());
    }
    result = x.shape.slice(0, x.shape.count - 1);
    shape.rows = result.product();
    result.push(shape.features[layers]);
  }

  // A result, or `out` once it overlaps no operand.
  Tensor make(py::handle out, const Dims& dims, DType dtype, const Tensor& dy,
              const char* op) const {
    const Tensor made = make_result(out, dims, dtype, op, {&x, &dy});
    for (int l = 0; l < shape.layers && !out.is_none(); ++l) {
      make_result(out, dims, dtype, op, {&weight[l], &bias[l]});
    }
    return made;
  }

  template <class T>
  MlpArrays<const T> parameters(Context& context) const {
    MlpArrays<const T> result{};
    for (int l = 0; l < shape.layers; ++l) {
      result.weight[l] = contiguous<T>(context, weight[l]);
      result.bias[l] = bias[l].owner ? contiguous<T>(context, bias[l]) : nullptr;
    }
    return result;
  }

  double nanoseconds() const {
    double products = 0;
    for (int l = 0; l < shape.layers; ++l) products += static_cast<double>(weight[l].size());
    return 2.0 * products * static_cast<double>(shape.rows) / kFlopsANanosecond;
  }
};

py::object forward(py::handle input, py::handle weights, py::handle biases, py::handle activation,
                   py::handle output_activation, py::handle activation_args,
                   py::handle output_activation_args, py::handle out) {
  constexpr const char* kOp = "fused_mlp";
  CallContext context;
  const Activation hidden = parse_activation(activation, activation_args, kOp);
  const Activation last = parse_activation(output_activation, output_activation_args, kOp);
  const Problem p(input, weights, biases, hidden, last, kOp);
  const Tensor y = p.make(out, p.result, p.x.dtype, Tensor(), kOp);
  with_any_float(p.x.dtype, [&](auto t) {
    using T = decltype(t);
    run(p.nanoseconds(), [&] {
      fused_mlp(*context, y.as<T>(), contiguous<T>(*context, p.x), p.parameters<T>(*context),
                p.shape);
    });
  });
  return y.owner;
}

// The gradients of the parameters that are wanted: new arrays, or those of `out`.
struct Gradients {
  Tensor weight[kMlpLayers], bias[kMlpLayers];

  template <class G>
  MlpArrays<G> pointers(int layers) const {
    MlpArrays<G> result{};
    for (int l = 0; l < layers; ++l) {
      result.weight[l] = weight[l].as<G>();
      result.bias[l] = bias[l].as<G>();
    }
    return result;
  }
};

py::object owners(const Tensor* tensors, int layers) {
  py::tuple result(layers);
  for (int l = 0; l < layers; ++l) {
    result[static_cast<size_t>(l)] = tensors[l].owner ? tensors[l].owner : py::object(py::none());
  }
  return result;
}

py::object backward(py::handle grad_output, py::handle input, py::handle weights, py::handle biases,
                    py::handle activation, py::handle output_activation, py::handle activation_args,
                    py::handle output_activation_args, py::handle wrt, py::handle adds,
                    py::handle out) {
  constexpr const char* kOp = "fused_mlp_backward";
  CallContext context;
  const Activation hidden = parse_activation(activation, activation_args, kOp);
  const Activation last = parse_activation(output_activation, output_activation_args, kOp);
  const Wanted wanted(wrt, {"input", "weights", "biases"}, 7, kOp);
  const bool accumulate = parse_flag(adds, kOp, "accumulate");
  const Problem p(input, weights, biases, hidden, last, kOp);
  const int layers = p.shape.layers;
  const Tensor dy = read_like(p.x, grad_output, kOp, "grad_output");
  check_shape(dy, p.result, kOp, "grad_output");

  check_type(out.is_none() || (py::isinstance<py::tuple>(out) && py::len(out) == 3),
             "{}: out must be a 3-tuple (dinput, dweights, dbiases), None where not given", kOp);
  const auto given = [&](int i) { return out.is_none() ? py::object(py::none()) : at(out, i); };
  const auto given_at = [&](int i, int l) -> py::object {
    const py::object list = given(i);
    return list.is_none() ? py::object(py::none()) : at(list, l);
  };
  DType dtype = p.x.dtype;  // of the parameters' gradients; float32 if one of out is
  for (int i = 1; i < 3; ++i) {
    if (given(i).is_none() || !wanted[i]) continue;
    const int count = count_layers(given(i), kOp, "out");
    check(count == layers, "{}: out must have one array for each of {} layers; got {}", kOp, layers,
          count);
    for (int l = 0; l < layers && is_half(p.x.dtype); ++l) {
      const py::object one = given_at(i, l);
      if (!one.is_none() && read(one, kOp, "out").dtype == DType::float32) dtype = DType::float32;
    }
  }
  const auto result = [&](int i, int l, const Tensor& parameter) {
    const py::object one = given_at(i, l);
    check(!accumulate || !one.is_none(),
          "{}: accumulate adds to dweights and dbiases; give all that wrt names in out", kOp);
    return p.make(one, parameter.shape, dtype, dy, kOp);
  };
  Tensor dx;
  if (wanted[0]) dx = p.make(given(0), p.x.shape, p.x.dtype, dy, kOp);
  Gradients gradients;
  for (int l = 0; l < layers; ++l) {
    if (wanted[1]) gradients.weight[l] = result(1, l, p.weight[l]);
    if (wanted[2] && p.bias[l].owner) gradients.bias[l] = result(2, l, p.bias[l]);
  }
  with_any_float(p.x.dtype, [&](auto t) {
    using T = decltype(t);
    run(3 * p.nanoseconds(), [&] {
      const auto differentiate = [&](auto arrays) {
        fused_mlp_backward(*context, dx.as<T>(), arrays, contiguous<T>(*context, dy),
                           contiguous<T>(*context, p.x), p.parameters<T>(*context), p.shape,
                           accumulate);
      };
      if constexpr (sizeof(T) == 2) {
        if (dtype == DType::float32) return differentiate(gradients.pointers<float>(layers));
      }
      differentiate(gradients.pointers<T>(layers));
    });
  });
  return py::make_tuple(
      dx.owner ? dx.owner : py::object(py::none()),
      wanted[1] ? owners(gradients.weight, layers) : py::object(py::none()),
      wanted[2] && !biases.is_none() ? owners(gradients.bias, layers) : py::object(py::none()));
}

bool trains_on_chip(py::handle input, py::handle weights, py::handle biases, py::handle activation,
                    py::handle output_activation, py::handle activation_args,
                    py::handle output_activation_args) {
  constexpr const char* kOp = "fused_mlp";
  CallContext context;
  const Activation hidden = parse_activation(activation, activation_args, kOp);
  const Activation last = parse_activation(output_activation, output_activation_args, kOp);
  const Problem p(input, weights, biases, hidden, last, kOp);
  bool result = false;
  with_any_float(p.x.dtype,
                 [&](auto t) { result = fused_mlp_trains_on_chip<decltype(t)>(p.shape); });
  return result;
}

}  // namespace

void bind_fused_mlp(py::module_& m) {
  m.def("fused_mlp", &forward, py::arg("input"), py::arg("weights"), py::arg("biases"),
        py::arg("activation"), py::arg("output_activation"), py::arg("activation_args"),
        py::arg("output_activation_args"), py::arg("out"));
  m.def("fused_mlp_backward", &backward, py::arg("grad_output"), py::arg("input"),
        py::arg("weights"), py::arg("biases"), py::arg("activation"), py::arg("output_activation"),
        py::arg("activation_args"), py::arg("output_activation_args"), py::arg("wrt"),
        py::arg("accumulate"), py::arg("out"));
  m.def("fused_mlp_trains_on_chip", &trains_on_chip, py::arg("input"), py::arg("weights"),
        py::arg("biases"), py::arg("activation"), py::arg("output_activation"),
        py::arg("activation_args"), py::arg("output_activation_args"));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
