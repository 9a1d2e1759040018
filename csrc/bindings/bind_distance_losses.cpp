// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>

#include "families.hpp"
#include "row_loss.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

int64_t features(const Tensor& tensor) { return tensor.shape.count > 0 ? tensor.shape.back() : 1; }

struct TripletMarginLoss : RowLoss {
  static constexpr int kGradients = 3;
  static Wanted wanted(py::handle wrt, const char* op) {
    return {wrt, {"anchor", "positive", "negative"}, 7, op};
  }

  TripletMargin options;

  TripletMarginLoss(const char* name, py::handle anchor, py::handle positive, py::handle negative,
                    py::handle margin, py::handle p, py::handle eps, py::handle swap,
                    py::handle reduction_name)
      : RowLoss(name) {
    inputs[0] = read_float(anchor, op, "anchor");
    inputs[1] = read_like(inputs[0], positive, op, "positive");
    inputs[2] = read_like(inputs[0], negative, op, "negative");
    const Dims &a = inputs[0].shape, &b = inputs[1].shape, &c = inputs[2].shape;
    check(a.count == b.count && a.count == c.count,
          "{}: anchor, positive and negative must have as many axes; got {}, {} and {}", op, a, b,
          c);
    full = broadcast_shapes(broadcast_shapes(a, b, op, "anchor and positive"), c, op,
                            "anchor, positive and negative");
    options = {parse_number(margin, op, "margin"), parse_number(p, op, "p"),
               parse_number(eps, op, "eps"), parse_flag(swap, op, "swap")};
    check(!(options.margin <= 0), "{}: margin must be greater than 0; got {}", op, options.margin);
    check(options.p > 0, "{}: p must be greater than 0; got {}", op, options.p);
    // Torch's distance of two operands that are both repeated along the features counts them once.
    const auto pair_fits = [&](int i, int j) {
      return std::max(features(inputs[i]), features(inputs[j])) == row_shape().size;
    };
    check(pair_fits(0, 1) && pair_fits(0, 2) && (!options.swap || pair_fits(1, 2)),
          "{}: each distance must have all features, one of its two operands the whole last axis; "
          "got {}, {} and {}",
          op, a, b, c);
    check(!std::isinf(options.p) || row_shape().size > 0 || row_shape().rows == 0,
          "{}: with p = inf there must be features; got shape {}", op, full);
    reduce(reduction_name, row_axes());
  }

  template <class T, class Gradients, class Inputs>
  void compute(Context& context, T* loss, const Gradients& dx, const T* grad_output,
               const Inputs& x) const {
    triplet_margin_loss<T>(context, loss, {dx[0], dx[1], dx[2]}, grad_output, {x[0], x[1], x[2]},
                           row_shape(), options, reduction);
  }
};

struct CosineEmbeddingLoss : RowLoss {
  static constexpr int kGradients = 2;
  static Wanted wanted(py::handle wrt, const char* op) {
    return {wrt, {"input1", "input2"}, 3, op};
  }

  double margin;

  CosineEmbeddingLoss(const char* name, py::handle input1, py::handle input2, py::handle labels,
                      py::handle margin_object, py::handle reduction_name)
      : RowLoss(name) {
    inputs[0] = read_float(input1, op, "input1");
    inputs[1] = read_like(inputs[0], input2, op, "input2");
    target = read(labels, op, "target");
    if (!is_integer(target.dtype) && target.dtype != inputs[0].dtype) {
      throw TypeError(format("{}: target must have an integer dtype or the inputs' {}; got {}", op,
                             dtype_name(inputs[0].dtype), dtype_text(target.owner)));
    }
    const Dims &a = inputs[0].shape, &b = inputs[1].shape, &t = target.shape;
    const bool fits = t.count <= 1 && a.count == t.count + 1 && b.count == t.count + 1;
    check(fits,
          "{}: inputs must be (N, D) with target (N,), or (D,) with target (); got {}, {} and {}",
          op, a, b, t);
    check(a.back() == b.back(), "{}: inputs must have one number of features; got {} and {}", op, a,
          b);
    const Dims both = broadcast_shapes(a, b, op, "inputs");
    Dims rows = broadcast_shapes(both.slice(0, t.count), t, op, "inputs and target");
    target = broadcast_to(target, rows);
    full = rows;
    full.push(a.back());
    check_size(full, op);
    margin = parse_number(margin_object, op, "margin");
    reduce(reduction_name, rows);
  }

  template <class T, class Gradients, class Inputs>
  void compute(Context& context, T* loss, const Gradients& dx, const T* grad_output,
               const Inputs& x) const {
    const bool has_signs = is_float(target.dtype);
    const T* signs = has_signs ? contiguous<T>(context, target) : nullptr;
    const IndexView view = has_signs ? IndexView{} : index_view(context, target);
    cosine_embedding_loss(context, loss, dx[0], dx[1], grad_output, x[0], x[1], signs, view,
                          row_shape(), margin, reduction);
  }
};

}  // namespace

void bind_distance_losses(py::module_& m) {
  def_row_loss<TripletMarginLoss>(
      m, "triplet_margin_loss",
      {"anchor", "positive", "negative", "margin", "p", "eps", "swap", "reduction"});
  def_row_loss<CosineEmbeddingLoss>(m, "cosine_embedding_loss",
                                    {"input1", "input2", "target", "margin", "reduction"});
}

}  // namespace tilegrad::TILEGRAD_BACKEND
