// SPDX-License-Identifier: MIT
// The contract's losses but cross_entropy; include ops.hpp, whose rules hold here.
#pragma once

#include "ops.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

// ---- losses of one element at a time -----------------------------------------------------------

enum class LossKind {
  mse,
  l1,
  smooth_l1,  // number is beta, > 0
  huber,      // number is delta
  binary_cross_entropy,
  binary_cross_entropy_with_logits,  // c is pos_weight; null is one
  poisson_nll,                       // number is eps, logarithm is log_input
  gaussian_nll,                      // c is var, number is eps
  kl_div,                            // logarithm is log_target
  margin_ranking,                    // a and b are the scores, c the target; number is the margin
  hinge_embedding,                   // number is the margin
  soft_margin,
};

struct LossFunction {
  LossKind kind;
  double number = 0;
  bool logarithm = false, full = false;
};

template <class T>
struct ElementwiseLoss {
  LossFunction function;
  const T *a, *b, *c = nullptr;  // (n): input, target and what else there is
  const T* weight = nullptr;     // (n) or null
  int64_t n;
  Reduction reduction;
  double divisor = 1;             // of a mean, or
  bool divide_by_weight = false;  // the sum of weight
};

// w_i f(a_i, b_i, c_i), formulas in losses.hpp; reduced: their sum over the divisor.
// loss: n elements for none, else one; null if not wanted. gradients: by a, b and c, n elements or
// null. grad_output: like loss, null means one. A gradient may be the operand that it belongs to.
// *bad becomes the first i at which an operand is outside its range, and then nothing else is
// computed; else -1. (binary_cross_entropy: a and b in [0, 1], NaN is not; gaussian_nll: c >= 0.)
// Only where a loss is wanted. A GPU does not look: *bad stays -1 and the loss there is NaN.
template <class T>
void elementwise_loss(Context&, T* loss, T* const (&gradients)[3], const T* grad_output,
                      const ElementwiseLoss<T>& problem, int64_t* bad);

// ---- ctc_loss ----------------------------------------------------------------------------------

// Sample n has the first input_lengths[n] times, and as labels target_lengths[n] of the targets
// from target_starts[n] on. These three (batch) arrays are in host memory.
template <class T>
struct CtcLoss {
  const T* log_probs;  // (time, batch, classes)
  IndexView targets;
  const int64_t *input_lengths, *target_lengths, *target_starts;
  int64_t time, batch, classes, blank;
  Reduction reduction = Reduction::mean;
  bool zero_infinity = false;
};

// -log of the sum, over all paths of a class for each time that are the labels once repeats are
// merged and blanks left out, of the product of their probabilities; infinite without such a path.
// mean: of each loss over max(1, target length). zero_infinity: a loss of infinity is 0, and so its
// gradient. loss: (batch) for none, else one element, or null.
// dlog_probs: like log_probs or null; g (exp(log_probs) - share of the paths through the class), 0
// from input_length on, NaN up to it where the loss is not finite: the gradient of the input of a
// log_softmax, as torch has it, which that op's backward leaves as it is. grad_output: like loss,
// null means one. *bad_target: the place of the first label that is no class, else -1; as bad_row
// of cross_entropy, with a gradient of 0 for the whole sample on a GPU.
template <class T>
void ctc_loss(Context&, T* loss, T* dlog_probs, const T* grad_output, const CtcLoss<T>& problem,
              int64_t* bad_target);

// ---- losses with one value a row ---------------------------------------------------------------
// loss: a row's or, but for none, one element; mean divides by the number of rows. loss and every
// gradient may be null; grad_output is like loss, null means one. A target that is no class:
// *bad_row as for cross_entropy, or its place among the targets where a row has several.

// -w_t x_t with t the class of the row, 0 if ignored; mean divides by the sum of w_t. x is
// problem.logits, here logarithms of probabilities; targets are indices, without smoothing.
template <class T>
void nll_loss(Context&, T* loss, T* dinput, const T* grad_output, const CrossEntropy<T>& problem,
              int64_t* bad_row);

struct RowShape {
  int64_t rows, size;  // size: elements of a row
};

// w_t / size sum over c != t of max(0, margin - x_t + x_c)^p, p = 1 or 2. Here and in
// multilabel_margin_loss a term that is NaN counts for nothing, as in torch.
struct MultiMargin {
  bool squared = false;
  double margin = 1;
};
template <class T>
void multi_margin_loss(Context&, T* loss, T* dinput, const T* grad_output, const T* input,
                       IndexView target, const T* weight, RowShape shape, MultiMargin options,
                       Reduction reduction, int64_t* bad_row);

// 1 / size sum of max(0, 1 - x_t + x_c) over the t that the row of target (like input) lists before
// its first -1, each as often as it occurs, and over the c that it does not list.
template <class T>
void multilabel_margin_loss(Context&, T* loss, T* dinput, const T* grad_output, const T* input,
                            IndexView target, RowShape shape, Reduction reduction,
                            int64_t* bad_row);

// -1 / size sum_c w_c (t_c log s(x_c) + (1 - t_c) log s(-x_c)), s the sigmoid. target is like
// input; weight is null or has rows weight_stride apart, 0 for one row for all.
template <class T>
void multilabel_soft_margin_loss(Context&, T* loss, T* dinput, T* dtarget, const T* grad_output,
                                 const T* input, const T* target, const T* weight,
                                 int64_t weight_stride, RowShape shape, Reduction reduction);

// max(0, margin + |a - p + eps|_p - |a - n + eps|_p); with swap the last distance is that of
// positive and negative where this is less. p > 0, also infinity. At a distance of 0 its slope is
// 0.
template <class T>
struct Triplet {
  T *anchor, *positive, *negative;
};
struct TripletMargin {
  double margin = 1, p = 2, eps = 1e-6;
  bool swap = false;
};
template <class T>
void triplet_margin_loss(Context&, T* loss, Triplet<T> gradients, const T* grad_output,
                         Triplet<const T> inputs, RowShape shape, TripletMargin options,
                         Reduction reduction);

// cos = x1 x2 / sqrt((x1 x1 + 1e-12)(x2 x2 + 1e-12)): 1 - cos where the row's label is 1,
// max(0, cos - margin) where it is -1, else 0. labels are read where `signs` is null.
template <class T>
void cosine_embedding_loss(Context&, T* loss, T* dinput1, T* dinput2, const T* grad_output,
                           const T* input1, const T* input2, const T* signs, IndexView labels,
                           RowShape shape, double margin, Reduction reduction);

}  // namespace tilegrad::TILEGRAD_BACKEND
