// SPDX-License-Identifier: MIT
#include "cross_entropy_problem.hpp"
#include "families.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

struct Arguments {
  py::handle input, target, weight;
  py::handle ignore_index;
  py::handle reduction;
  py::handle label_smoothing;
};

// Loss, gradient or both. grad_output may be null for one.
std::pair<Tensor, Tensor> compute(const char* op, const Arguments& args, bool want_loss,
                                  bool want_grad, py::handle grad_output, py::handle out,
                                  py::handle variant = py::none()) {
  CallContext context;
  const std::string rung = parse_variant(variant, op);
  const CrossEntropyProblem p(op, args.input, args.target, args.weight, args.ignore_index,
                              args.reduction, args.label_smoothing);
  Tensor grad;
  if (grad_output.ptr() != nullptr)
    grad = read_grad_output(*context, p.logits, grad_output, p.result, op);
  const py::handle none = py::none();
  const Tensor loss = want_loss ? make_result(want_grad ? none : out, p.result, p.logits.dtype, op,
                                              {&p.logits, &p.target, &p.weight})
                                : Tensor();
  const Tensor dlogits = want_grad
                             ? make_result(want_loss ? none : out, p.logits.shape, p.logits.dtype,
                                           op, {&p.logits, &p.target, &p.weight, &grad})
                             : Tensor();
  with_any_float(p.logits.dtype, [&](auto t) {
    using T = decltype(t);
    run(elementwise_nanoseconds(p.logits), [&] {
      const T* upstream = grad.data == nullptr ? nullptr : contiguous<T>(*context, grad);
      const CrossEntropy<T> problem = p.native<T>(*context);
      compute_cross_entropy(op, *context, loss.as<T>(), dlogits.as<T>(), upstream, problem, rung);
    });
  });
  return {loss, dlogits};
}

}  // namespace

void bind_cross_entropy(py::module_& m) {
  m.def(
      "cross_entropy",
      [](py::handle input, py::handle target, py::handle weight, py::handle ignore_index,
         py::handle reduction, py::handle label_smoothing, py::handle out) {
        const Tensor loss =
            compute("cross_entropy",
                    {input, target, weight, ignore_index, reduction, label_smoothing}, true, false,
                    {}, out)
                .first;
        return out.is_none() ? scalar_or_array(loss) : loss.owner;
      },
      py::arg("input"), py::arg("target"), py::arg("weight"), py::arg("ignore_index"),
      py::arg("reduction"), py::arg("label_smoothing"), py::arg("out"));
  m.def(
      "cross_entropy_backward",
      [](py::handle grad_output, py::handle input, py::handle target, py::handle weight,
         py::handle ignore_index, py::handle reduction, py::handle label_smoothing, py::handle wrt,
         py::handle out) {
        constexpr const char* kOp = "cross_entropy_backward";
        const Wanted wanted(wrt, {"input"}, 1, kOp);
        const Tensor grad =
            compute(kOp, {input, target, weight, ignore_index, reduction, label_smoothing}, false,
                    true, grad_output, wanted.out(out, 0, kOp))
                .second;
        return wanted.gather({grad.owner});
      },
      py::arg("grad_output"), py::arg("input"), py::arg("target"), py::arg("weight"),
      py::arg("ignore_index"), py::arg("reduction"), py::arg("label_smoothing"), py::arg("wrt"),
      py::arg("out"));
  m.def(
      "cross_entropy_value_and_grad",
      [](py::handle input, py::handle target, py::handle weight, py::handle ignore_index,
         py::handle reduction, py::handle label_smoothing, py::handle wrt, py::handle variant) {
        constexpr const char* kOp = "cross_entropy_value_and_grad";
        const Wanted wanted(wrt, {"input"}, 1, kOp);
        const auto [loss, grad] =
            compute(kOp, {input, target, weight, ignore_index, reduction, label_smoothing}, true,
                    true, {}, py::none(), variant);
        return py::make_tuple(scalar_or_array(loss), wanted.gather({grad.owner}));
      },
      py::arg("input"), py::arg("target"), py::arg("weight"), py::arg("ignore_index"),
      py::arg("reduction"), py::arg("label_smoothing"), py::arg("wrt"), py::arg("variant"));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
