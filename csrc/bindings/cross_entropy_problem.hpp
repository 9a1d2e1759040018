// SPDX-License-Identifier: MIT
// The operands of cross_entropy and nll_loss, read and checked: shared by the functions and the
// training plan.
#pragma once

#include <cstring>
#include <string>

#include "arrays.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

// What cross_entropy takes; nll_loss has no probabilities and no 16-bit floats.
enum class ClassTargets : bool { any, indices };

struct CrossEntropyProblem {
  Tensor logits, target, weight;
  bool has_weight, by_index;
  ClassShape shape;
  Dims result;  // the loss: () or, for reduction "none", the target's shape without the classes
  int64_t ignore_index;
  Reduction reduction;
  double label_smoothing;

  CrossEntropyProblem(const char* op, py::handle input, py::handle target_object,
                      py::handle weight_object, py::handle ignored, py::handle reduction_name,
                      py::handle smoothing, ClassTargets targets = ClassTargets::any)
      : logits(read_float(input, op, "input",
                          targets == ClassTargets::any ? Floats::all : Floats::wide)),
        target(read(target_object, op, "target")),
        has_weight(!weight_object.is_none()),
        by_index(is_integer(target.dtype)),
        ignore_index(parse_integer(ignored, op, "ignore_index")),
        reduction(parse_reduction(reduction_name, op)),
        label_smoothing(parse_number(smoothing, op, "label_smoothing")) {
    check(label_smoothing >= 0 && label_smoothing <= 1,
          "{}: label_smoothing must be in [0, 1]; got {}", op, label_smoothing);
    const Dims& s = logits.shape;
    check(s.count >= 1, "{}: input must be (C,), (N, C) or (N, C, d1, ...); got shape {}", op, s);
    const int axis = s.count == 1 ? 0 : 1;
    shape = {s.product(0, axis), s[axis], s.product(axis + 1, s.count)};
    Dims rows = s.slice(0, axis);
    for (int i = axis + 1; i < s.count; ++i) rows.push(s[i]);
    check(shape.classes > 0 || rows.product() == 0, "{}: input has no classes; got shape {}", op,
          s);
    if (by_index) {
      check(target.shape == rows, "{}: class indices must have shape {} for input {}; got {}", op,
            rows, s, target.shape);
    } else {
      if (targets == ClassTargets::indices) {
        throw TypeError(format("{}: target must hold class indices of an integer dtype; got {}", op,
                               dtype_text(target.owner)));
      }
      if (target.dtype != logits.dtype) {
        throw TypeError(
            format("{}: target must hold class indices of an integer dtype, or "
                   "probabilities of input's dtype {}; got {}",
                   op, dtype_name(logits.dtype), dtype_text(target.owner)));
      }
      check(target.shape == s,
            "{}: class probabilities must have input's shape {}; got {} (class indices must have "
            "an integer dtype)",
            op, s, target.shape);
    }
    if (has_weight) {
      weight = read_like(logits, weight_object, op, "weight");
      check_shape(weight, {shape.classes}, op, "weight");
    }
    if (reduction == Reduction::none) result = rows;
  }

  // Operands that are not contiguous are packed into workspace.
  template <class T>
  CrossEntropy<T> native(Context& context) const {
    CrossEntropy<T> problem{};
    problem.logits = contiguous<T>(context, logits);
    problem.shape = shape;
    if (by_index) {
      problem.indices = {contiguous_bytes(context, target),
                         static_cast<int>(item_size(target.dtype)), target.dtype <= DType::int64};
    } else {
      problem.probabilities = contiguous<T>(context, target);
    }
    problem.weight = has_weight ? contiguous<T>(context, weight) : nullptr;
    problem.ignore_index = ignore_index;
    problem.reduction = reduction;
    problem.label_smoothing = label_smoothing;
    return problem;
  }
};

// The index as text, of whatever integer type it is stored in.
inline std::string index_text(const IndexView& view, int64_t row) {
  uint64_t bits = 0;  // little-endian: a narrow value fills the low bytes
  std::memcpy(&bits, static_cast<const char*>(view.data) + row * view.bytes,
              static_cast<size_t>(view.bytes));
  const int unused = 64 - 8 * view.bytes;
  return view.is_signed ? std::to_string(static_cast<int64_t>(bits << unused) >> unused)
                        : std::to_string(bits);
}

template <class T>
void refuse_bad_row(const char* op, const CrossEntropy<T>& problem, int64_t bad_row) {
  if (bad_row < 0) return;
  throw std::invalid_argument(format("{}: target must be in [0, {}) or ignore_index ({}); got {}",
                                     op, problem.shape.classes, problem.ignore_index,
                                     index_text(problem.indices, bad_row)));
}

// Runs the op; a class index out of range becomes a ValueError and nothing is written.
template <class T>
void compute_cross_entropy(const char* op, Context& context, T* loss, T* dlogits,
                           const T* grad_output, const CrossEntropy<T>& problem,
                           std::string_view variant = {}) {
  int64_t bad_row = -1;
  cross_entropy(context, loss, dlogits, grad_output, problem, &bad_row, variant);
  refuse_bad_row(op, problem, bad_row);
}

template <class T>
void compute_nll_loss(const char* op, Context& context, T* loss, T* dinput, const T* grad_output,
                      const CrossEntropy<T>& problem) {
  int64_t bad_row = -1;
  nll_loss(context, loss, dinput, grad_output, problem, &bad_row);
  refuse_bad_row(op, problem, bad_row);
}

}  // namespace tilegrad::TILEGRAD_BACKEND
