// SPDX-License-Identifier: MIT
#include "cross_entropy_problem.hpp"
#include "families.hpp"
#include "row_loss.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

struct NllLoss : RowLoss {
  static constexpr int kGradients = 1;
  static Wanted wanted(py::handle wrt, const char* op) { return {wrt, {"input"}, 1, op}; }

  CrossEntropyProblem problem;

  NllLoss(const char* name, py::handle input, py::handle classes, py::handle class_weight,
          py::handle ignore_index, py::handle reduction_name)
      : RowLoss(name),
        problem(name, input, classes, class_weight, ignore_index, reduction_name, py::float_(0.0),
                ClassTargets::indices) {
    inputs[0] = problem.logits;
    target = problem.target;
    weight = problem.weight;
    full = problem.logits.shape;
    reduction = problem.reduction;
    result = problem.result;
  }

  template <class T, class Gradients, class Inputs>
  void compute(Context& context, T* loss, const Gradients& dx, const T* grad_output,
               const Inputs& x) const {
    CrossEntropy<T> native = problem.native<T>(context);
    native.logits = x[0];
    compute_nll_loss(op, context, loss, dx[0], grad_output, native);
  }
};

}  // namespace

void bind_nll_loss(py::module_& m) {
  def_row_loss<NllLoss>(m, "nll_loss", {"input", "target", "weight", "ignore_index", "reduction"});
}

}  // namespace tilegrad::TILEGRAD_BACKEND
