// SPDX-License-Identifier: MIT
// What a plan records of layers.
#include "plan.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

template <class T>
using ParameterGradient = std::conditional_t<sizeof(T) == 2, float, T>;
template <class T>
constexpr bool kFused = sizeof(T) > 2;  // else the weight's update works on its master

LinearSize linear_size(const Tensor& x, const Tensor& weight) {
  return {x.shape.product(0, x.shape.count - 1), weight.shape[1], weight.shape[0]};
}

double nanoseconds(LinearSize size) {
  return 0.02 * static_cast<double>(size.rows * size.in_features * size.out_features);
}

// A slope for each channel, the second axis, or one for all.
ClassShape prelu_shape(const Tensor& x, const Tensor& weight) {
  if (weight.size() == 1) return {1, 1, x.size()};
  return {x.shape[0], x.shape[1], x.shape.product(2, x.shape.count)};
}

ClassShape class_shape(const Tensor& x, int axis) {
  return {x.shape.product(0, axis), x.shape[axis], x.shape.product(axis + 1, x.shape.count)};
}

void record_linear(Plan& plan, py::handle y, py::handle z, py::handle x, py::handle weight,
                   py::handle bias, py::handle activation, py::handle args) {
  const Activation f = parse_activation(activation, args, "linear");
  const Tensor w = plan.take(weight, "weight");
  const LinearSize size = linear_size(plan.take(x, "input"), w);
  plan.whole_step().linear(w.dtype, plan.address(y), plan.address(z), plan.address(x),
                           plan.address(weight), plan.address(bias), size, f);
  plan.record(w.dtype, nanoseconds(size), [&](auto t) -> Plan::Call {
    using T = decltype(t);
    return [=, y = plan.at<T>(y), z = plan.at<T>(z), x = plan.at<const T>(x),
            w = plan.at<const T>(weight), b = plan.at<const T>(bias)](Context& context) {
      tilegrad::TILEGRAD_BACKEND::linear(context, y(), z(), x(), w(), b(), size, f);
    };
  });
}

void record_linear_backward(Plan& plan, py::handle dx, py::handle dweight, py::handle dbias,
                            py::handle dy, py::handle x, py::handle weight, py::handle saved,
                            bool saved_is_output, py::handle activation, py::handle args) {
  const Activation f = parse_activation(activation, args, "linear_backward");
  const Tensor w = plan.take(weight, "weight");
  const LinearSize size = linear_size(plan.take(x, "input"), w);
  plan.whole_step().linear_backward(plan.address(dx), plan.address(dweight), plan.address(dbias),
                                    plan.address(dy), plan.address(x), plan.address(saved),
                                    saved_is_output, f);
  plan.record(w.dtype, 2 * nanoseconds(size), [&](auto t) -> Plan::Call {
    using T = decltype(t);
    using G = ParameterGradient<T>;
    const auto dx_at = plan.at<T>(dx);
    const auto db_at = plan.at<G>(dbias);
    const auto dy_at = plan.at<const T>(dy), saved_at = plan.at<const T>(saved);
    const auto layer = plan.chain().add<T, G>(plan.calls(), dx_at(), dy_at(), size, saved_at,
                                              saved_is_output, f, db_at);
    return
        [=, &plan, dw = plan.at<G>(dweight), x = plan.at<const T>(x), w = plan.at<const T>(weight),
         update = plan.updates().offer<G>(plan.at<G>(dweight)(), kFused<T> ? w.size() : 0)](
            Context& context) {
          if constexpr (kFused<T>) {
            if (update.is_set()) {
              return update.linear_backward(context, dx_at(), dw(), db_at(), dy_at(), x(),
                                            saved_at(), saved_is_output, size, f);
            }
          }
          layer.backward(context, dx_at(), dw(), db_at(), dy_at(), x(), w(), saved_at(),
                         saved_is_output, size, f, plan.accumulates());
        };
  });
}

void record_activation(Plan& plan, py::handle y, py::handle x, py::handle name, py::handle args) {
  const Activation f = parse_activation(name, args, "activation");
  const Tensor of = plan.take(y, "output");
  plan.whole_step().activation(plan.address(y), plan.address(x), of.size(), f);
  plan.record(of.dtype, elementwise_nanoseconds(of), [&](auto t) -> Plan::Call {
    using T = decltype(t);
    return [f, n = of.size(), y = plan.at<T>(y), x = plan.at<const T>(x)](Context& context) {
      tilegrad::TILEGRAD_BACKEND::activation(context, y(), x(), n, f);
    };
  });
}

void record_activation_backward(Plan& plan, py::handle dx, py::handle dy, py::handle saved,
                                bool saved_is_output, py::handle name, py::handle args) {
  const Activation f = parse_activation(name, args, "activation_backward");
  const Tensor of = plan.take(dx, "dx");
  plan.whole_step().activation_backward(plan.address(dx), plan.address(dy), plan.address(saved),
                                        saved_is_output, f);
  plan.record(of.dtype, elementwise_nanoseconds(of), [&](auto t) -> Plan::Call {
    using T = decltype(t);
    return [f, saved_is_output, n = of.size(), dx = plan.at<T>(dx), dy = plan.at<const T>(dy),
            saved = plan.at<const T>(saved)](Context& context) {
      tilegrad::TILEGRAD_BACKEND::activation_backward(context, dx(), dy(), saved(), saved_is_output,
                                                      n, f);
    };
  });
}

void record_prelu(Plan& plan, py::handle y, py::handle x, py::handle weight) {
  const Tensor of = plan.take(y, "output"), w = plan.take(weight, "weight");
  const ClassShape shape = prelu_shape(of, w);
  plan.record(of.dtype, elementwise_nanoseconds(of), [&](auto t) -> Plan::Call {
    using T = decltype(t);
    return [shape, y = plan.at<T>(y), x = plan.at<const T>(x),
            w = plan.at<const T>(weight)](Context& context) {
      tilegrad::TILEGRAD_BACKEND::prelu(context, y(), x(), w(), shape);
    };
  });
}

void record_prelu_backward(Plan& plan, py::handle dx, py::handle dweight, py::handle dy,
                           py::handle x, py::handle weight) {
  const Tensor of = plan.take(dy, "grad_output"), w = plan.take(weight, "weight");
  const ClassShape shape = prelu_shape(of, w);
  plan.record(of.dtype, 2 * elementwise_nanoseconds(of), [&](auto t) -> Plan::Call {
    using T = decltype(t);
    using G = ParameterGradient<T>;
    return [shape, &plan, dx = plan.at<T>(dx), dw = plan.at<G>(dweight), dy = plan.at<const T>(dy),
            x = plan.at<const T>(x), w = plan.at<const T>(weight)](Context& context) {
      tilegrad::TILEGRAD_BACKEND::prelu_backward(context, dx(), dw(), dy(), x(), w(), shape,
                                                 plan.accumulates());
    };
  });
}

void record_softmax(Plan& plan, py::handle y, py::handle x, int axis, bool log) {
  const Tensor of = plan.take(y, "output");
  const ClassShape shape = class_shape(of, axis);
  plan.record(of.dtype, elementwise_nanoseconds(of), [&](auto t) -> Plan::Call {
    using T = decltype(t);
    return [shape, log, y = plan.at<T>(y), x = plan.at<const T>(x)](Context& context) {
      tilegrad::TILEGRAD_BACKEND::softmax(context, y(), x(), shape, log);
    };
  });
}

void record_softmax_backward(Plan& plan, py::handle dx, py::handle dy, py::handle y, int axis,
                             bool log) {
  const Tensor of = plan.take(dx, "dx");
  const ClassShape shape = class_shape(of, axis);
  plan.record(of.dtype, elementwise_nanoseconds(of), [&](auto t) -> Plan::Call {
    using T = decltype(t);
    return [shape, log, dx = plan.at<T>(dx), dy = plan.at<const T>(dy),
            y = plan.at<const T>(y)](Context& context) {
      tilegrad::TILEGRAD_BACKEND::softmax_backward(context, dx(), dy(), y(), shape, log);
    };
  });
}

// Forward or backward; `offset` counts from the generator's offset at the start of the step.
void record_dropout(Plan& plan, py::handle y, py::handle x, double p, uint64_t offset,
                    py::object state) {
  const Tensor of = plan.take(y, "output");
  read_float(y, "dropout", "input");
  const StepState* step = plan.take_state(state);
  plan.record<Floats::wide>(of.dtype, elementwise_nanoseconds(of), [&](auto t) -> Plan::Call {
    using T = decltype(t);
    return [p, offset, step, n = of.size(), y = plan.at<T>(y),
            x = plan.at<const T>(x)](Context& context) {
      tilegrad::TILEGRAD_BACKEND::dropout(context, y(), x(), n, p, offset, step);
    };
  });
}

}  // namespace

void bind_plan_layers(PlanClass& plan) {
  plan.def("linear", &record_linear, py::arg("y"), py::arg("z"), py::arg("x"), py::arg("weight"),
           py::arg("bias"), py::arg("activation"), py::arg("activation_args"))
      .def("linear_backward", &record_linear_backward, py::arg("dx"), py::arg("dweight"),
           py::arg("dbias"), py::arg("dy"), py::arg("x"), py::arg("weight"), py::arg("saved"),
           py::arg("saved_is_output"), py::arg("activation"), py::arg("activation_args"))
      .def("activation", &record_activation, py::arg("y"), py::arg("x"), py::arg("activation"),
           py::arg("activation_args"))
      .def("activation_backward", &record_activation_backward, py::arg("dx"), py::arg("dy"),
           py::arg("saved"), py::arg("saved_is_output"), py::arg("activation"),
           py::arg("activation_args"))
      .def("prelu", &record_prelu, py::arg("y"), py::arg("x"), py::arg("weight"))
      .def("prelu_backward", &record_prelu_backward, py::arg("dx"), py::arg("dweight"),
           py::arg("dy"), py::arg("x"), py::arg("weight"))
      .def("softmax", &record_softmax, py::arg("y"), py::arg("x"), py::arg("axis"), py::arg("log"))
      .def("softmax_backward", &record_softmax_backward, py::arg("dx"), py::arg("dy"), py::arg("y"),
           py::arg("axis"), py::arg("log"))
      .def("dropout", &record_dropout, py::arg("y"), py::arg("x"), py::arg("p"), py::arg("offset"),
           py::arg("state"));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
