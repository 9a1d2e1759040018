// SPDX-License-Identifier: MIT
// Elementwise losses: input and target broadcast, a reduction, gradients for both.
#include "arrays.hpp"
#include "families.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

struct Problem {
  Tensor input, target, weight;
  bool has_weight;
  Dims full;    // the broadcast shape
  Dims result;  // the loss: full for reduction "none", else ()
  Reduction reduction;

  Problem(const char* op, py::handle input_object, py::handle target_object,
          py::handle reduction_name, py::handle weight_object)
      : input(read_float(input_object, op, "input")),
        target(read_like(input, target_object, op, "target")),
        has_weight(!weight_object.is_none()),
        full(broadcast_shapes(input.shape, target.shape, op, "input and target")),
        reduction(parse_reduction(reduction_name, op)) {
    if (has_weight) {
      weight = read_like(input, weight_object, op, "weight");
      check_shape(weight, input.shape, op, "weight");
      check(full == input.shape,
            "{}: with weight, target must broadcast to input's shape {}; got {}", op, input.shape,
            target.shape);
    }
    if (reduction == Reduction::none) result = full;
  }
};

// Loss and the wanted gradients in one pass. A gradient is computed in the broadcast shape and
// summed back to its input's.
struct Computed {
  Tensor loss;
  py::object dinput, dtarget;
};

Computed compute(const char* op, const Problem& p, bool want_loss, const Wanted* wanted,
                 py::handle grad_output, py::handle out) {
  CallContext context;
  Tensor grad;
  if (grad_output.ptr() != nullptr)
    grad = read_grad_output(*context, p.input, grad_output, p.result, op);
  Tensor loss, grads[2];
  if (want_loss) {
    loss = make_result(wanted == nullptr ? out : py::handle(py::none()), p.result, p.input.dtype,
                       op, {&p.input, &p.target, &p.weight});
  }
  const Tensor* const of[2] = {&p.input, &p.target};
  for (int i = 0; i < 2; ++i) {
    if (wanted == nullptr || !(*wanted)[i]) continue;
    grads[i] = make_result(want_loss ? py::none() : wanted->out(out, i, op), of[i]->shape,
                           p.input.dtype, op, {&p.input, &p.target, &p.weight, &grad, &grads[0]});
  }
  with_float(p.input.dtype, [&](auto t) {
    using T = decltype(t);
    const int64_t n = p.full.product();
    const Tensor full_input = broadcast_to(p.input, p.full);
    const Tensor full_target = broadcast_to(p.target, p.full);
    run(elementwise_nanoseconds(full_input), [&] {
      const T* x = contiguous<T>(*context, full_input);
      const T* target = contiguous<T>(*context, full_target);
      const T* weight = p.has_weight ? contiguous<T>(*context, p.weight) : nullptr;
      const T* upstream = grad.data == nullptr ? nullptr : contiguous<T>(*context, grad);
      T* full_grads[2] = {nullptr, nullptr};
      for (int i = 0; i < 2; ++i) {
        if (grads[i].data == nullptr) continue;
        full_grads[i] =
            of[i]->shape == p.full ? grads[i].as<T>() : (*context).workspace->template take<T>(n);
      }
      mse_loss(*context, loss.as<T>(), full_grads[0], full_grads[1], upstream, x, target, weight, n,
               p.reduction);
      for (int i = 0; i < 2; ++i) {
        if (full_grads[i] == nullptr || of[i]->shape == p.full) continue;
        sum_to_shape(*context, grads[i].as<T>(), full_grads[i], p.full, of[i]->shape);
      }
    });
  });
  return {loss, grads[0].owner, grads[1].owner};
}

}  // namespace

void bind_losses(py::module_& m) {
  m.def(
      "mse_loss",
      [](py::handle input, py::handle target, py::handle reduction, py::handle weight,
         py::handle out) {
        constexpr const char* kOp = "mse_loss";
        const Problem p(kOp, input, target, reduction, weight);
        const Tensor loss = compute(kOp, p, true, nullptr, {}, out).loss;
        return out.is_none() ? scalar_or_array(loss) : loss.owner;
      },
      py::arg("input"), py::arg("target"), py::arg("reduction"), py::arg("weight"), py::arg("out"));
  m.def(
      "mse_loss_backward",
      [](py::handle grad_output, py::handle input, py::handle target, py::handle reduction,
         py::handle weight, py::handle wrt, py::handle out) {
        constexpr const char* kOp = "mse_loss_backward";
        const Problem p(kOp, input, target, reduction, weight);
        const Wanted wanted(wrt, {"input", "target"}, 1, kOp);
        const Computed result = compute(kOp, p, false, &wanted, grad_output, out);
        return wanted.gather({result.dinput, result.dtarget});
      },
      py::arg("grad_output"), py::arg("input"), py::arg("target"), py::arg("reduction"),
      py::arg("weight"), py::arg("wrt"), py::arg("out"));
  m.def(
      "mse_loss_value_and_grad",
      [](py::handle input, py::handle target, py::handle reduction, py::handle weight,
         py::handle wrt) {
        constexpr const char* kOp = "mse_loss_value_and_grad";
        const Problem p(kOp, input, target, reduction, weight);
        const Wanted wanted(wrt, {"input", "target"}, 1, kOp);
        const Computed result = compute(kOp, p, true, &wanted, {}, py::none());
        return py::make_tuple(scalar_or_array(result.loss),
                              wanted.gather({result.dinput, result.dtarget}));
      },
      py::arg("input"), py::arg("target"), py::arg("reduction"), py::arg("weight"), py::arg("wrt"));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
