// SPDX-License-Identifier: MIT
#include "cross_entropy_problem.hpp"
#include "families.hpp"
#include "row_loss.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

void check_indices(const Tensor& target, const char* op) {
  if (is_integer(target.dtype)) return;
  throw TypeError(format("{}: target must hold class indices of an integer dtype; got {}", op,
                         dtype_text(target.owner)));
}

// Rows of classes: (C,) or (N, C), or one class without axes.
void check_rows(const Tensor& input, const char* op) {
  const Dims& s = input.shape;
  check(s.count <= 2, "{}: input must be (C,) or (N, C); got shape {}", op, s);
  check(s.count == 0 || s.back() > 0, "{}: input has no classes; got shape {}", op, s);
}

void refuse_bad_class(const char* op, const IndexView& target, int64_t bad, int64_t least,
                      int64_t classes) {
  if (bad < 0) return;
  throw std::invalid_argument(format("{}: target must be in [{}, {}); got {}", op, least, classes,
                                     index_text(target, bad)));
}

struct OneInput : RowLoss {
  static constexpr int kGradients = 1;
  static Wanted wanted(py::handle wrt, const char* op) { return {wrt, {"input"}, 1, op}; }

  OneInput(const char* name, py::handle input, py::handle target_object) : RowLoss(name) {
    inputs[0] = read_float(input, op, "input");
    target = read(target_object, op, "target");
    full = inputs[0].shape;
    check_rows(inputs[0], op);
    check_indices(target, op);
  }
};

struct MultiMarginLoss : OneInput {
  MultiMargin options;

  MultiMarginLoss(const char* name, py::handle input, py::handle classes, py::handle p,
                  py::handle margin, py::handle class_weight, py::handle reduction_name)
      : OneInput(name, input, classes) {
    const auto [rows, size] = row_shape();
    // As torch: one row may have its class in an array with or without an axis.
    const bool fits =
        target.shape.count <= 1 && target.size() == rows && (target.shape.count == 1 || rows == 1);
    check(fits, "{}: target must hold a class for each row of input {}; got shape {}", op, full,
          target.shape);
    const double power = parse_number(p, op, "p");
    check(power == 1 || power == 2, "{}: p must be 1 or 2; got {}", op, power);
    options = {power == 2, parse_number(margin, op, "margin")};
    if (!class_weight.is_none()) {
      weight = read_like(inputs[0], class_weight, op, "weight");
      check(weight.shape == Dims{size}, "{}: weight must have shape {} for input {}; got {}", op,
            Dims{size}, full, weight.shape);
    }
    reduce(reduction_name, target.shape);
  }

  template <class T, class Gradients, class Inputs>
  void compute(Context& context, T* loss, const Gradients& dx, const T* grad_output,
               const Inputs& x) const {
    const IndexView classes = index_view(context, target);
    const T* factors = weight.data == nullptr ? nullptr : contiguous<T>(context, weight);
    int64_t bad = -1;
    multi_margin_loss(context, loss, dx[0], grad_output, x[0], classes, factors, row_shape(),
                      options, reduction, &bad);
    refuse_bad_class(op, classes, bad, 0, row_shape().size);
  }
};

struct MultilabelMarginLoss : OneInput {
  MultilabelMarginLoss(const char* name, py::handle input, py::handle lists,
                       py::handle reduction_name)
      : OneInput(name, input, lists) {
    check_shape(target, full, op, "target");
    reduce(reduction_name, row_axes());
  }

  template <class T, class Gradients, class Inputs>
  void compute(Context& context, T* loss, const Gradients& dx, const T* grad_output,
               const Inputs& x) const {
    const IndexView lists = index_view(context, target);
    int64_t bad = -1;
    multilabel_margin_loss(context, loss, dx[0], grad_output, x[0], lists, row_shape(), reduction,
                           &bad);
    refuse_bad_class(op, lists, bad, -1, row_shape().size);
  }
};

struct MultilabelSoftMarginLoss : RowLoss {
  static constexpr int kGradients = 2;
  static Wanted wanted(py::handle wrt, const char* op) { return {wrt, {"input", "target"}, 1, op}; }

  int64_t weight_stride = 0;

  MultilabelSoftMarginLoss(const char* name, py::handle input, py::handle labels,
                           py::handle label_weight, py::handle reduction_name)
      : RowLoss(name) {
    inputs[0] = read_float(input, op, "input");
    inputs[1] = read_like(inputs[0], labels, op, "target");
    full = inputs[0].shape;
    check(full.count > 0, "{}: input must have an axis of classes; got shape {}", op, full);
    check_fits(inputs[1], "target");
    if (!label_weight.is_none()) {
      weight = read_like(inputs[0], label_weight, op, "weight");
      check_fits(weight, "weight");
      const bool shared = weight.shape == full.slice(full.count - 1, full.count);
      weight_stride = shared ? 0 : full.back();
      if (!shared) weight = broadcast_to(weight, full);
    }
    reduce(reduction_name, row_axes());
  }

  void check_fits(const Tensor& tensor, const char* name) const {
    const bool fits =
        tensor.shape.count <= full.count && broadcast_shapes(full, tensor.shape, op, name) == full;
    check(fits, "{}: {} must broadcast to input's shape {}; got {}", op, name, full, tensor.shape);
  }

  template <class T, class Gradients, class Inputs>
  void compute(Context& context, T* loss, const Gradients& dx, const T* grad_output,
               const Inputs& x) const {
    const T* factors = weight.data == nullptr ? nullptr : contiguous<T>(context, weight);
    multilabel_soft_margin_loss(context, loss, dx[0], dx[1], grad_output, x[0], x[1], factors,
                                weight_stride, row_shape(), reduction);
  }
};

}  // namespace

void bind_margin_losses(py::module_& m) {
  def_row_loss<MultiMarginLoss>(m, "multi_margin_loss",
                                {"input", "target", "p", "margin", "weight", "reduction"});
  def_row_loss<MultilabelMarginLoss>(m, "multilabel_margin_loss", {"input", "target", "reduction"});
  def_row_loss<MultilabelSoftMarginLoss>(m, "multilabel_soft_margin_loss",
                                         {"input", "target", "weight", "reduction"});
}

}  // namespace tilegrad::TILEGRAD_BACKEND
