// SPDX-License-Identifier: MIT
// The elementwise losses as a table, shared by the functions and the training plan.
#pragma once

#include <string>
#include <type_traits>

#include "arrays.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

// What shapes the operands may have.
enum class LossShapes {
  broadcast,  // any that broadcast
  same,       // input's
  same_axes,  // as many axes each
  variance,   // that of the third, which may lack input's last axis
};
enum class LossWeight { none, like_input, broadcast };

struct LossRow {
  const char* name;
  LossKind kind;
  const char* operands[3];
  int gradients;         // of the first operands
  unsigned default_wrt;  // a bit for each
  LossShapes shapes;
  LossWeight weight = LossWeight::none;
  const char* number = nullptr;  // how the option is called

  bool divides_by_weight() const { return kind == LossKind::mse || kind == LossKind::l1; }
};

const LossRow& loss_row(const std::string& name);

// ValueError for a number that the loss does not allow.
LossFunction parse_loss(const LossRow& row, py::handle number, py::handle logarithm,
                        py::handle full, const char* op);

// Runs the op; an operand outside its range becomes a ValueError and nothing is written.
template <class T>
void compute_loss(const char* op, Context& context, T* loss, T* const (&gradients)[3],
                  const T* grad_output, const ElementwiseLoss<T>& problem) {
  int64_t bad = -1;
  elementwise_loss(context, loss, gradients, grad_output, problem, &bad);
  if (bad < 0) return;
  if (problem.function.kind == LossKind::gaussian_nll) {
    throw std::invalid_argument(
        format("{}: var must be at least 0; got {} at element {}", op, problem.c[bad], bad));
  }
  throw std::invalid_argument(
      format("{}: input and target must be in [0, 1]; got {} and {} at element {}", op,
             problem.a[bad], problem.b[bad], bad));
}

// What a loss of T is computed in: of 16 bits in float, and results are rounded once.
template <class T>
using LossNumber = std::conditional_t<sizeof(T) == 2, float, T>;

// n elements as such numbers: themselves, or a copy in workspace. Null stays null.
template <class T>
const LossNumber<T>* widened(Context& context, const T* x, int64_t n) {
  if constexpr (sizeof(T) == 2) {
    if (x == nullptr) return nullptr;
    auto* const copy = context.workspace->take<float>(n);
    convert(context, copy, x, n);
    return copy;
  } else {
    return x;
  }
}

// Where n results are computed before `narrowed` brings them to y: y itself, or workspace.
template <class T>
LossNumber<T>* room_for(Context& context, T* y, int64_t n) {
  if constexpr (sizeof(T) == 2) {
    return y == nullptr ? nullptr : context.workspace->take<float>(n);
  } else {
    return y;
  }
}
template <class T>
void narrowed(Context& context, T* y, const LossNumber<T>* x, int64_t n) {
  if constexpr (sizeof(T) == 2) {
    if (y != nullptr) convert(context, y, x, n);
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
