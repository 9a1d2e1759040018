// SPDX-License-Identifier: MIT
// The elementwise losses as a table, shared by the functions and the training plan.
#pragma once

#include <string>

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

}  // namespace tilegrad::TILEGRAD_BACKEND
