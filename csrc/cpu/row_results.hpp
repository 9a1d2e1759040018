// SPDX-License-Identifier: MIT
// What losses with one value a row share: the factor of a row's gradient, and where its loss goes.
#pragma once

#include <cstdint>

#include "../ops.hpp"
#include "reduce.hpp"

namespace tilegrad::cpu {

// Rows may be put in any order and by any thread; finish() adds them in the order of their index.
template <class T>
class RowResults {
 public:
  // `divisor` is that of a mean. Takes workspace: open a scope before.
  RowResults(Context& context, T* loss, const T* grad_output, int64_t rows, Reduction reduction,
             double divisor)
      : context_(context),
        loss_(loss),
        grad_output_(reduction == Reduction::none ? grad_output : nullptr),
        rows_(rows),
        divisor_(reduction == Reduction::mean ? divisor : 1),
        factor_(1 / divisor_) {
    if (reduction == Reduction::none) return;
    if (grad_output != nullptr) factor_ = *grad_output / divisor_;
    if (loss != nullptr) sums_ = context.workspace->take<double>(rows);
  }

  double factor(int64_t row) const { return grad_output_ == nullptr ? factor_ : grad_output_[row]; }

  void put(int64_t row, double value) const {
    if (sums_ != nullptr) {
      sums_[row] = value;
    } else if (loss_ != nullptr) {
      loss_[row] = static_cast<T>(value);
    }
  }

  void finish() const {
    if (sums_ != nullptr) *loss_ = static_cast<T>(sum_all(context_, sums_, rows_) / divisor_);
  }

 private:
  Context& context_;
  T* loss_;
  const T* grad_output_;  // of each row, or null
  int64_t rows_;
  double divisor_, factor_;
  double* sums_ = nullptr;
};

// Rows of `size` elements that make a task worth its start.
inline int64_t rows_of_a_task(int64_t size) {
  constexpr int64_t kTaskElements = 8192;
  return size < kTaskElements ? kTaskElements / (size + 1) + 1 : 1;
}

}  // namespace tilegrad::cpu
