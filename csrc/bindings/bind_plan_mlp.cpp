// SPDX-License-Identifier: MIT
// What a plan records of fused_mlp.
#include "../ops_mlp.hpp"
#include "plan.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

template <class T>
using ParameterGradient = std::conditional_t<sizeof(T) == 2, float, T>;

py::object array_at(py::handle list, int l) { return py::object(list[py::int_(l)]); }

// Where a recorded call finds an array for each layer.
template <class T>
struct LayerPointers {
  Plan::Pointer<T> weight[kMlpLayers], bias[kMlpLayers];

  LayerPointers(Plan& plan, py::handle weights, py::handle biases) {
    for (int l = 0; l < static_cast<int>(py::len(weights)); ++l) {
      weight[l] = plan.at<T>(array_at(weights, l));
      bias[l] = plan.at<T>(array_at(biases, l));
    }
  }
  MlpArrays<T> operator()(int layers) const {
    MlpArrays<T> arrays{};
    for (int l = 0; l < layers; ++l) {
      arrays.weight[l] = weight[l]();
      arrays.bias[l] = bias[l]();
    }
    return arrays;
  }
};

MlpShape mlp_shape(Plan& plan, py::handle x, py::handle weights, py::handle activation,
                   py::handle output_activation, py::handle args, py::handle output_args) {
  const Tensor input = plan.take(x, "input");
  MlpShape shape{};
  shape.layers = static_cast<int>(py::len(weights));
  check(shape.layers >= 1 && shape.layers <= kMlpLayers,
        "fused_mlp: weights must be of 1 to {} layers; got {}", kMlpLayers, shape.layers);
  shape.rows = input.shape.product(0, input.shape.count - 1);
  shape.features[0] = input.shape.back();
  for (int l = 0; l < shape.layers; ++l) {
    shape.features[l + 1] = plan.take(array_at(weights, l), "weight").shape[0];
  }
  shape.hidden = parse_activation(activation, args, "fused_mlp");
  shape.output = parse_activation(output_activation, output_args, "fused_mlp");
  return shape;
}

double nanoseconds(const MlpShape& shape) {
  double products = 0;
  for (int l = 0; l < shape.layers; ++l) {
    products += static_cast<double>(shape.features[l] * shape.features[l + 1]);
  }
  return 0.02 * products * static_cast<double>(shape.rows);
}

void record_fused_mlp(Plan& plan, py::handle y, py::handle x, py::handle weights, py::handle biases,
                      py::handle activation, py::handle output_activation, py::handle args,
                      py::handle output_args) {
  const MlpShape shape =
      mlp_shape(plan, x, weights, activation, output_activation, args, output_args);
  plan.record(plan.take(y, "output").dtype, nanoseconds(shape), [&](auto t) -> Plan::Call {
    using T = decltype(t);
    return [shape, y = plan.at<T>(y), x = plan.at<const T>(x),
            parameters = LayerPointers<const T>(plan, weights, biases)](Context& context) {
      tilegrad::TILEGRAD_BACKEND::fused_mlp(context, y(), x(), parameters(shape.layers), shape);
    };
  });
}

void record_fused_mlp_backward(Plan& plan, py::handle dx, py::handle dweights, py::handle dbiases,
                               py::handle dy, py::handle x, py::handle weights, py::handle biases,
                               py::handle activation, py::handle output_activation, py::handle args,
                               py::handle output_args) {
  const MlpShape shape =
      mlp_shape(plan, x, weights, activation, output_activation, args, output_args);
  plan.record(
      plan.take(dy, "grad_output").dtype, 3 * nanoseconds(shape), [&](auto t) -> Plan::Call {
        using T = decltype(t);
        using G = ParameterGradient<T>;
        return [shape, &plan, dx = plan.at<T>(dx), dy = plan.at<const T>(dy),
                x = plan.at<const T>(x), gradients = LayerPointers<G>(plan, dweights, dbiases),
                parameters = LayerPointers<const T>(plan, weights, biases)](Context& context) {
          tilegrad::TILEGRAD_BACKEND::fused_mlp_backward(context, dx(), gradients(shape.layers),
                                                         dy(), x(), parameters(shape.layers), shape,
                                                         plan.accumulates());
        };
      });
}

}  // namespace

void bind_plan_mlp(PlanClass& plan) {
  plan.def("fused_mlp", &record_fused_mlp, py::arg("y"), py::arg("x"), py::arg("weights"),
           py::arg("biases"), py::arg("activation"), py::arg("output_activation"),
           py::arg("activation_args"), py::arg("output_activation_args"))
      .def("fused_mlp_backward", &record_fused_mlp_backward, py::arg("dx"), py::arg("dweights"),
           py::arg("dbiases"), py::arg("dy"), py::arg("x"), py::arg("weights"), py::arg("biases"),
           py::arg("activation"), py::arg("output_activation"), py::arg("activation_args"),
           py::arg("output_activation_args"));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
