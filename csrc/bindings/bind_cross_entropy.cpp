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

struct Computed {
  Tensor loss, dlogits, dtarget;
};

// The loss, the wanted gradients, or both. grad_output may be null for one.
Computed compute(const char* op, const Arguments& args, bool want_loss, const Wanted* wanted,
                 py::handle grad_output, py::handle out, py::handle variant = py::none()) {
  CallContext context;
  const std::string rung = parse_variant(variant, op);
  const CrossEntropyProblem p(op, args.input, args.target, args.weight, args.ignore_index,
                              args.reduction, args.label_smoothing);
  Tensor grad;
  if (grad_output.ptr() != nullptr)
    grad = read_grad_output(*context, p.logits, grad_output, p.result, op);
  Computed result;
  const py::object none = py::none();
  if (want_loss) {
    result.loss = make_result(wanted != nullptr ? py::handle(none) : out, p.result, p.logits.dtype,
                              op, {&p.logits, &p.target, &p.weight});
  }
  if (wanted != nullptr) {
    check(!(*wanted)[1] || !p.by_index,
          "{}: wrt names target, but class indices have no gradient; got {}", op,
          dtype_name(p.target.dtype));
    Tensor* const gradients[2] = {&result.dlogits, &result.dtarget};
    for (int i = 0; i < 2; ++i) {
      if (!(*wanted)[i]) continue;
      *gradients[i] =
          make_result(want_loss ? none : wanted->out(out, i, op), p.logits.shape, p.logits.dtype,
                      op, {&p.logits, &p.target, &p.weight, &grad, &result.dlogits});
    }
  }
  with_any_float(p.logits.dtype, [&](auto t) {
    using T = decltype(t);
    run(elementwise_nanoseconds(p.logits), [&] {
      const T* upstream = grad.data == nullptr ? nullptr : contiguous<T>(*context, grad);
      const CrossEntropy<T> problem = p.native<T>(*context);
      if (result.loss.data != nullptr || result.dlogits.data != nullptr) {
        compute_cross_entropy(op, *context, result.loss.as<T>(), result.dlogits.as<T>(), upstream,
                              problem, rung);
      }
      if (result.dtarget.data != nullptr) {
        cross_entropy_target_backward(*context, result.dtarget.as<T>(), upstream, problem);
      }
    });
  });
  return result;
}

}  // namespace

void bind_cross_entropy(py::module_& m) {
  m.def(
      "cross_entropy",
      [](py::handle input, py::handle target, py::handle weight, py::handle ignore_index,
         py::handle reduction, py::handle label_smoothing, py::handle out) {
        const Tensor loss =
            compute("cross_entropy",
                    {input, target, weight, ignore_index, reduction, label_smoothing}, true,
                    nullptr, {}, out)
                .loss;
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
        const Wanted wanted(wrt, {"input", "target"}, 1, kOp);
        const Computed result =
            compute(kOp, {input, target, weight, ignore_index, reduction, label_smoothing}, false,
                    &wanted, grad_output, out);
        return wanted.gather({result.dlogits.owner, result.dtarget.owner});
      },
      py::arg("grad_output"), py::arg("input"), py::arg("target"), py::arg("weight"),
      py::arg("ignore_index"), py::arg("reduction"), py::arg("label_smoothing"), py::arg("wrt"),
      py::arg("out"));
  m.def(
      "cross_entropy_value_and_grad",
      [](py::handle input, py::handle target, py::handle weight, py::handle ignore_index,
         py::handle reduction, py::handle label_smoothing, py::handle wrt, py::handle variant) {
        constexpr const char* kOp = "cross_entropy_value_and_grad";
        const Wanted wanted(wrt, {"input", "target"}, 1, kOp);
        const Computed result =
            compute(kOp, {input, target, weight, ignore_index, reduction, label_smoothing}, true,
                    &wanted, {}, py::none(), variant);
        return py::make_tuple(scalar_or_array(result.loss),
                              wanted.gather({result.dlogits.owner, result.dtarget.owner}));
      },
      py::arg("input"), py::arg("target"), py::arg("weight"), py::arg("ignore_index"),
      py::arg("reduction"), py::arg("label_smoothing"), py::arg("wrt"), py::arg("variant"));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
