// SPDX-License-Identifier: MIT
// What a plan records of losses.
#include "cross_entropy_problem.hpp"
#include "elementwise_loss.hpp"
#include "plan.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

void record_cross_entropy(Plan& plan, py::handle loss, py::handle dlogits, py::handle logits,
                          py::handle target, py::handle weight, py::handle ignore_index,
                          py::handle reduction, py::handle label_smoothing) {
  constexpr const char* kOp = "cross_entropy";
  const CrossEntropyProblem p(kOp, logits, target, weight, ignore_index, reduction,
                              label_smoothing);
  plan.take(loss, "loss");
  plan.take(weight, "weight");
  CallContext context;
  context.at(p.logits.place);
  plan.record(p.logits.dtype, elementwise_nanoseconds(p.logits), [&](auto t) -> Plan::Call {
    using T = decltype(t);
    const CrossEntropy<T> native = p.native<T>(*context);
    if constexpr (std::is_same_v<T, float>) {
      plan.whole_step().cross_entropy(plan.address(loss), plan.address(dlogits),
                                      plan.address(logits), native);
    }
    return [problem = native, by_index = p.by_index, loss = plan.at<T>(loss),
            dlogits = plan.at<T>(dlogits), logits = plan.at<const T>(logits),
            target = plan.at<const void>(target)](Context& context) mutable {
      problem.logits = logits();
      if (by_index) {
        problem.indices.data = target();
      } else {
        problem.probabilities = static_cast<const T*>(target());
      }
      compute_cross_entropy(kOp, context, loss(), dlogits(), static_cast<const T*>(nullptr),
                            problem);
    };
  });
}

void record_nll_loss(Plan& plan, py::handle loss, py::handle dinput, py::handle input,
                     py::handle target, py::handle weight, py::handle ignore_index,
                     py::handle reduction) {
  constexpr const char* kOp = "nll_loss";
  const CrossEntropyProblem p(kOp, input, target, weight, ignore_index, reduction, py::float_(0.0),
                              ClassTargets::indices);
  plan.take(loss, "loss");
  plan.take(weight, "weight");
  CallContext context;
  context.at(p.logits.place);
  plan.record<Floats::wide>(
      p.logits.dtype, elementwise_nanoseconds(p.logits), [&](auto t) -> Plan::Call {
        using T = decltype(t);
        return [problem = p.native<T>(*context), loss = plan.at<T>(loss),
                dinput = plan.at<T>(dinput), input = plan.at<const T>(input),
                target = plan.at<const void>(target)](Context& context) mutable {
          problem.logits = input();
          problem.indices.data = target();
          compute_nll_loss(kOp, context, loss(), dinput(), static_cast<const T*>(nullptr), problem);
        };
      });
}

// Operands of one shape. c and weight never change.
void record_elementwise_loss(Plan& plan, const std::string& name, py::handle loss,
                             py::handle dinput, py::handle input, py::handle target, py::handle c,
                             py::handle weight, py::handle number, py::handle logarithm,
                             py::handle full, py::handle reduction) {
  const LossRow& row = loss_row(name);
  const char* const op = row.name;
  plan.take(loss, "loss");
  plan.take(c, "c");
  plan.take(weight, "weight");
  const Tensor of = plan.take(dinput, "dinput");
  read_float(dinput, op, "input", Floats::all);
  check_shape(plan.take(target, "target"), of.shape, op, "target");
  const LossFunction function = parse_loss(row, number, logarithm, full, op);
  const bool batch = reduction.cast<std::string>() == "batchmean";
  const Reduction reduce = batch ? Reduction::mean : parse_reduction(reduction, op);
  const auto divisor = static_cast<double>(batch ? of.shape[0] : of.size());
  const bool by_weight = row.divides_by_weight() && !weight.is_none();
  plan.record(of.dtype, elementwise_nanoseconds(of), [&](auto t) -> Plan::Call {
    using T = decltype(t);
    return [=, n = of.size(), loss = plan.at<T>(loss), dinput = plan.at<T>(dinput),
            input = plan.at<const T>(input), target = plan.at<const T>(target),
            c = plan.at<const T>(c), weight = plan.at<const T>(weight)](Context& context) {
      using V = LossNumber<T>;
      WorkspaceScope scope(context);
      const auto read = [&](const T* x) { return widened<T>(context, x, n); };
      V* const value = room_for(context, loss(), 1);
      V* const gradients[3] = {room_for(context, dinput(), n), nullptr, nullptr};
      compute_loss<V>(op, context, value, gradients, nullptr,
                      {function, read(input()), read(target()), read(c()), read(weight()), n,
                       reduce, divisor, by_weight});
      narrowed(context, loss(), value, 1);
      narrowed(context, dinput(), gradients[0], n);
    };
  });
}

}  // namespace

void bind_plan_losses(PlanClass& plan) {
  plan.def("cross_entropy", &record_cross_entropy, py::arg("loss"), py::arg("dlogits"),
           py::arg("logits"), py::arg("target"), py::arg("weight"), py::arg("ignore_index"),
           py::arg("reduction"), py::arg("label_smoothing"))
      .def("nll_loss", &record_nll_loss, py::arg("loss"), py::arg("dinput"), py::arg("input"),
           py::arg("target"), py::arg("weight"), py::arg("ignore_index"), py::arg("reduction"))
      .def("elementwise_loss", &record_elementwise_loss, py::arg("name"), py::arg("loss"),
           py::arg("dinput"), py::arg("input"), py::arg("target"), py::arg("c"), py::arg("weight"),
           py::arg("number"), py::arg("logarithm"), py::arg("full"), py::arg("reduction"));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
