// SPDX-License-Identifier: MIT
#include <limits>
#include <vector>

#include "cross_entropy_problem.hpp"
#include "families.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr double kNanosecondsAState = 4;

// The lengths of a batch: a tuple or list of ints, or any array of integers. The kernels' work is
// laid out by them, so those of a device are waited for.
std::vector<int64_t> read_lengths(py::handle object, const char* op, const char* name) {
  py::object values = py::reinterpret_borrow<py::object>(object);
  if (!py::isinstance<py::tuple>(object) && !py::isinstance<py::list>(object)) {
    if (py::hasattr(object, "_storage")) {  // an Array: it has to be on the call's device
      read(object, op, name);
      values = values.attr("numpy")();
    }
    check_type(py::hasattr(values, "tolist") && PyType_Check(values.ptr()) == 0,
               "{}: {} must be a tuple or list of ints, or an array of integers; got {}", op, name,
               type_name(object));
    try {
      values = values.attr("tolist")();
    } catch (py::error_already_set& error) {  // its library's own: no memory, other layouts
      if (!error.matches(PyExc_Exception)) throw;
      throw TypeError(format("{}: {} could not be read: {}", op, name,
                             py::str(error.value()).cast<std::string>()));
    }
    if (!py::isinstance<py::list>(values)) values = py::make_tuple(values);  // it had no axis
  }
  std::vector<int64_t> lengths;
  for (py::handle item : values) {
    check(!py::isinstance<py::list>(item), "{}: {} must have one axis", op, name);
    check_type(PyIndex_Check(item.ptr()) && !PyBool_Check(item.ptr()),
               "{}: {} must hold integers; got {}", op, name, type_name(item));
    lengths.push_back(parse_integer(item, op, name));
  }
  return lengths;
}

struct Problem {
  Tensor log_probs, targets;
  std::vector<int64_t> input_lengths, target_lengths, target_starts;
  int64_t time, batch, classes, blank;
  Reduction reduction;
  bool zero_infinity;
  Dims result;
  double nanoseconds;

  Problem(const char* op, py::handle input, py::handle target_object, py::handle input_sizes,
          py::handle target_sizes, py::handle blank_index, py::handle reduction_name,
          py::handle zero)
      : log_probs(read_float(input, op, "log_probs")),
        targets(read(target_object, op, "targets")),
        input_lengths(read_lengths(input_sizes, op, "input_lengths")),
        target_lengths(read_lengths(target_sizes, op, "target_lengths")),
        blank(parse_integer(blank_index, op, "blank")),
        reduction(parse_reduction(reduction_name, op)),
        zero_infinity(parse_flag(zero, op, "zero_infinity")) {
    const Dims& s = log_probs.shape;
    check(s.count == 2 || s.count == 3, "{}: log_probs must be (T, N, C) or (T, C); got shape {}",
          op, s);
    time = s[0];
    batch = s.count == 3 ? s[1] : 1;
    classes = s[s.count - 1];
    check(blank >= 0 && blank < classes, "{}: blank must be in [0, {}); got {}", op, classes,
          blank);
    if (reduction == Reduction::none && s.count == 3) result = {batch};
    check_lengths(input_lengths, op, "input_lengths", time, "times of log_probs");
    check_type(is_integer(targets.dtype), "{}: targets must have an integer dtype; got {}", op,
               dtype_text(targets.owner));
    place_targets(op);
    const double states = 2 * static_cast<double>(targets.size() + batch);
    nanoseconds = kNanosecondsAState * states * static_cast<double>(time);
  }

  void check_lengths(const std::vector<int64_t>& lengths, const char* op, const char* name,
                     int64_t most, const char* of) const {
    check(static_cast<int64_t>(lengths.size()) == batch,
          "{}: {} must have {} entries, one for each sample of log_probs {}; got {}", op, name,
          batch, log_probs.shape, lengths.size());
    for (const int64_t length : lengths) {
      check(length >= 0 && length <= most, "{}: {} must be in [0, {}], the number of {}; got {}",
            op, name, most, of, length);
    }
  }

  // Where each sample's labels begin.
  void place_targets(const char* op) {
    const Dims& s = targets.shape;
    check(s.count == 1 || (s.count == 2 && s[0] == batch),
          "{}: targets must be ({}, S) for log_probs {}, or all labels in one axis; got shape {}",
          op, batch, log_probs.shape, s);
    check_lengths(target_lengths, op, "target_lengths", s.back(), "labels in targets");
    int64_t sum = 0;
    for (int64_t n = 0; n < batch; ++n) {
      target_starts.push_back(s.count == 2 ? n * s[1] : sum);
      check(target_lengths[static_cast<size_t>(n)] <= std::numeric_limits<int64_t>::max() - sum,
            "{}: target_lengths are too large", op);
      sum += target_lengths[static_cast<size_t>(n)];
    }
    check(s.count == 2 || sum == s[0],
          "{}: targets in one axis must have the sum of target_lengths, {}, elements; got shape {}",
          op, sum, s);
  }

  template <class T>
  CtcLoss<T> native(Context& context) const {
    CtcLoss<T> problem{};
    problem.log_probs = contiguous<T>(context, log_probs);
    problem.targets = {contiguous_bytes(context, targets),
                       static_cast<int>(item_size(targets.dtype)), targets.dtype <= DType::int64};
    problem.input_lengths = input_lengths.data();
    problem.target_lengths = target_lengths.data();
    problem.target_starts = target_starts.data();
    problem.time = time;
    problem.batch = batch;
    problem.classes = classes;
    problem.blank = blank;
    problem.reduction = reduction;
    problem.zero_infinity = zero_infinity;
    return problem;
  }
};

// Loss, gradient or both. grad_output may be null for one.
std::pair<Tensor, Tensor> compute(const char* op, CallContext& context, const Problem& p,
                                  bool want_loss, bool want_grad, py::handle grad_output,
                                  py::handle out) {
  Tensor grad;
  if (grad_output.ptr() != nullptr)
    grad = read_grad_output(*context, p.log_probs, grad_output, p.result, op);
  const py::handle none = py::none();
  Tensor loss, gradient;
  if (want_loss) {
    loss = make_result(want_grad ? none : out, p.result, p.log_probs.dtype, op,
                       {&p.log_probs, &p.targets});
  }
  if (want_grad) {
    gradient = make_result(want_loss ? none : out, p.log_probs.shape, p.log_probs.dtype, op,
                           {&p.log_probs, &p.targets, &grad});
  }
  with_float(p.log_probs.dtype, [&](auto t) {
    using T = decltype(t);
    run(p.nanoseconds, [&] {
      const T* upstream = grad.data == nullptr ? nullptr : contiguous<T>(*context, grad);
      const CtcLoss<T> problem = p.native<T>(*context);
      int64_t bad = -1;
      ctc_loss(*context, loss.as<T>(), gradient.as<T>(), upstream, problem, &bad);
      if (bad < 0) return;
      throw std::invalid_argument(format("{}: targets must be in [0, {}); got {}", op, p.classes,
                                         index_text(problem.targets, bad)));
    });
  });
  return {loss, gradient};
}

py::object forward(py::handle log_probs, py::handle targets, py::handle input_lengths,
                   py::handle target_lengths, py::handle blank, py::handle reduction,
                   py::handle zero_infinity, py::handle out) {
  constexpr const char* kOp = "ctc_loss";
  CallContext context;
  const Problem p(kOp, log_probs, targets, input_lengths, target_lengths, blank, reduction,
                  zero_infinity);
  const Tensor loss = compute(kOp, context, p, true, false, {}, out).first;
  return out.is_none() ? scalar_or_array(loss) : loss.owner;
}

py::object backward(py::handle grad_output, py::handle log_probs, py::handle targets,
                    py::handle input_lengths, py::handle target_lengths, py::handle blank,
                    py::handle reduction, py::handle zero_infinity, py::handle wrt,
                    py::handle out) {
  constexpr const char* kOp = "ctc_loss_backward";
  CallContext context;
  const Wanted wanted(wrt, {"log_probs"}, 1, kOp);
  const Problem p(kOp, log_probs, targets, input_lengths, target_lengths, blank, reduction,
                  zero_infinity);
  const py::object given = wanted.out(out, 0, kOp);
  return wanted.gather({compute(kOp, context, p, false, true, grad_output, given).second.owner});
}

py::object value_and_grad(py::handle log_probs, py::handle targets, py::handle input_lengths,
                          py::handle target_lengths, py::handle blank, py::handle reduction,
                          py::handle zero_infinity, py::handle wrt) {
  constexpr const char* kOp = "ctc_loss_value_and_grad";
  CallContext context;
  const Wanted wanted(wrt, {"log_probs"}, 1, kOp);
  const Problem p(kOp, log_probs, targets, input_lengths, target_lengths, blank, reduction,
                  zero_infinity);
  const auto [loss, gradient] = compute(kOp, context, p, true, true, {}, py::none());
  return py::make_tuple(scalar_or_array(loss), wanted.gather({gradient.owner}));
}

}  // namespace

void bind_ctc_loss(py::module_& m) {
  m.def("ctc_loss", &forward, py::arg("log_probs"), py::arg("targets"), py::arg("input_lengths"),
        py::arg("target_lengths"), py::arg("blank"), py::arg("reduction"), py::arg("zero_infinity"),
        py::arg("out"));
  m.def("ctc_loss_backward", &backward, py::arg("grad_output"), py::arg("log_probs"),
        py::arg("targets"), py::arg("input_lengths"), py::arg("target_lengths"), py::arg("blank"),
        py::arg("reduction"), py::arg("zero_infinity"), py::arg("wrt"), py::arg("out"));
  m.def("ctc_loss_value_and_grad", &value_and_grad, py::arg("log_probs"), py::arg("targets"),
        py::arg("input_lengths"), py::arg("target_lengths"), py::arg("blank"), py::arg("reduction"),
        py::arg("zero_infinity"), py::arg("wrt"));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
