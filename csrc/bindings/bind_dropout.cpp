// SPDX-License-Identifier: MIT
#include "arrays.hpp"
#include "families.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr double kNanosecondsAnElement = 0.5;

// Forward and backward are the same map: the mask depends on seed and offset only.
py::object masked(const char* op, const char* name, py::handle input, double p, uint64_t seed,
                  uint64_t offset, py::handle out) {
  CallContext context;
  check_range(p, p >= 0 && p <= 1, op, "p", "a probability in [0, 1]");
  const Tensor x = read_float(input, op, name);
  const Tensor y = make_result(out, x.shape, x.dtype, op, {&x}, true);
  StepState state;
  state.seed = seed;
  state.offset = offset;
  with_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    const T* from = contiguous<T>(*context, x);
    const int64_t n = x.size();
    run(n * kNanosecondsAnElement, [&] { dropout(*context, y.as<T>(), from, n, p, 0, &state); });
  });
  return y.owner;
}

}  // namespace

void bind_dropout(py::module_& m) {
  m.def(
      "dropout",
      [](py::handle input, double p, uint64_t seed, uint64_t offset, py::handle out) {
        return masked("dropout", "input", input, p, seed, offset, out);
      },
      py::arg("input"), py::arg("p"), py::arg("seed"), py::arg("offset"), py::arg("out"));
  m.def(
      "dropout_backward",
      [](py::handle grad_output, double p, uint64_t seed, uint64_t offset, py::handle out) {
        return masked("dropout_backward", "grad_output", grad_output, p, seed, offset, out);
      },
      py::arg("grad_output"), py::arg("p"), py::arg("seed"), py::arg("offset"), py::arg("out"));
  m.def(
      "random_uniform",
      [](py::handle shape, bool is_double, double low, double high, uint64_t seed,
         uint64_t offset) {
        Dims dims;
        for (py::handle size : shape) dims.push(size.cast<int64_t>());
        const Tensor y = empty(dims, is_double ? DType::float64 : DType::float32);
        with_float(y.dtype, [&](auto t) {
          random_uniform(y.as<decltype(t)>(), y.size(), low, high, seed, offset);
        });
        return y.owner;
      },
      py::arg("shape"), py::arg("is_double"), py::arg("low"), py::arg("high"), py::arg("seed"),
      py::arg("offset"));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
