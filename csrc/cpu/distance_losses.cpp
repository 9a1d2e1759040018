// SPDX-License-Identifier: MIT
// The losses of distances and angles: a task has whole rows; a row's sums and its gradient are
// kernels of simd/distance_losses.cpp, what is between them is computed here in double. A norm
// other than 1, 2 and infinity is a power an element, which is the C library's: no kernel.
#include "simd/distance_losses.hpp"

#include <limits>

#include "../ops.hpp"
#include "../row_losses.hpp"
#include "class_targets.hpp"
#include "isa.hpp"
#include "parallel.hpp"
#include "row_results.hpp"

namespace tilegrad::cpu {
namespace {

constexpr double kNanosecondsAnElement = 1;  // bound by memory
constexpr double kNanosecondsAPower = 60;
constexpr double kNanosecondsARow = 20;

template <class P>
P* at(P* p, int64_t i) {
  return p == nullptr ? nullptr : p + i;
}
template <class P>
Triplet<P> at(Triplet<P> t, int64_t i) {
  return {at(t.anchor, i), at(t.positive, i), at(t.negative, i)};
}

// 1, -1 or 0 for anything else.
template <class Label>
int sign_of_label(Label label) {
  if (label == 1) return 1;
  if constexpr (std::numeric_limits<Label>::is_signed) return label == -1 ? -1 : 0;
  return 0;
}

template <class T>
double difference(const TripletRow<T>& row, int which, int64_t i) {
  const auto [a, p, n] = row.inputs;
  const T d = which == 0 ? a[i] - p[i] : which == 1 ? a[i] - n[i] : p[i] - n[i];
  return d + row.eps;
}

// The norms of a row's differences, and its gradient when their factors are known.
template <class T, Norm kNorm>
struct RowNorms {
  const TripletRow<T>& row;
  double p;
  const DistanceKernels<T>& kernel = kernels<DistanceKernels<T>>();
  const TripletKernels<T>& triplet = kNorm == Norm::one   ? kernel.one
                                     : kNorm == Norm::two ? kernel.two
                                                          : kernel.infinity;
  double norm[kDifferences] = {};

  int count() const { return row.swap ? 3 : 2; }

  void find() {
    if constexpr (kNorm == Norm::any) {
      for (int k = 0; k < count(); ++k) {
        for (int64_t i = 0; i < row.n; ++i) norm[k] += norm_term<kNorm>(difference(row, k, i), p);
      }
    } else {
      triplet.sums(norm, row);
    }
    for (int k = 0; k < count(); ++k) norm[k] = norm_end<kNorm>(norm[k], p);
  }

  // Of |d|, times up[k].
  void differentiate(const Triplet<T>& gradients, const double (&up)[kDifferences]) const {
    TripletSlopes<T> slopes{gradients, {}, {}};
    double maxima[kDifferences] = {1, 1, 1};
    for (int k = 0; k < count(); ++k) slopes.norm[k] = static_cast<T>(norm[k]);
    if constexpr (kNorm == Norm::infinity) kernel.maxima(maxima, row, slopes.norm);
    if constexpr (kNorm == Norm::any) {
      for (int64_t i = 0; i < row.n; ++i) {
        double d[kDifferences] = {};
        for (int k = 0; k < count(); ++k) {
          d[k] = norm_slope<kNorm>(difference(row, k, i), up[k], norm[k], p);
        }
        const auto [da, dp, dn] = gradients;
        if (da != nullptr) da[i] = static_cast<T>(d[0] + d[1]);
        if (dp != nullptr) dp[i] = static_cast<T>(d[2] - d[0]);
        if (dn != nullptr) dn[i] = static_cast<T>(-d[1] - d[2]);
      }
    } else {
      for (int k = 0; k < count(); ++k) {
        slopes.factor[k] = static_cast<T>(norm_factor<kNorm>(up[k], norm[k], maxima[k]));
      }
      triplet.gradients(slopes, row);
    }
  }
};

template <class T, Norm kNorm>
void triplet_rows(Context& context, Triplet<T> gradients, Triplet<const T> inputs, RowShape shape,
                  const TripletMargin& options, const RowResults<T>& results) {
  const bool has_gradient =
      gradients.anchor != nullptr || gradients.positive != nullptr || gradients.negative != nullptr;
  const double an_element = kNorm == Norm::any ? 4 * kNanosecondsAPower : kNanosecondsAnElement;
  const auto [rows, size] = shape;
  const double time =
      static_cast<double>(rows) * (static_cast<double>(size) * an_element + kNanosecondsARow);
  parallel_ranges(
      context, rows, rows_of_a_task(size), time, [&, n = size](int64_t begin, int64_t end, int) {
        for (int64_t r = begin; r < end; ++r) {
          const TripletRow<T> row{at(inputs, r * n), n, static_cast<T>(options.eps), options.swap};
          RowNorms<T, kNorm> norms{row, options.p};
          norms.find();
          const auto [near, far, between] = norms.norm;
          const TripletEnd<double> last =
              triplet_end(options.margin, near, far, between, options.swap, results.factor(r));
          results.put(r, last.loss);
          if (!has_gradient) continue;
          norms.differentiate(at(gradients, r * n), {last.near, last.far, last.between});
        }
      });
}

}  // namespace

template <class T>
void triplet_margin_loss(Context& context, T* loss, Triplet<T> gradients, const T* grad_output,
                         Triplet<const T> inputs, RowShape shape, TripletMargin options,
                         Reduction reduction) {
  WorkspaceScope scope(context);
  const RowResults<T> results(context, loss, grad_output, shape.rows, reduction,
                              static_cast<double>(shape.rows));
  switch (norm_of(options.p)) {
    case Norm::one:
      triplet_rows<T, Norm::one>(context, gradients, inputs, shape, options, results);
      break;
    case Norm::two:
      triplet_rows<T, Norm::two>(context, gradients, inputs, shape, options, results);
      break;
    case Norm::infinity:
      triplet_rows<T, Norm::infinity>(context, gradients, inputs, shape, options, results);
      break;
    case Norm::any:
      triplet_rows<T, Norm::any>(context, gradients, inputs, shape, options, results);
      break;
  }
  results.finish();
}

template <class T>
void cosine_embedding_loss(Context& context, T* loss, T* dinput1, T* dinput2, const T* grad_output,
                           const T* input1, const T* input2, const T* signs, IndexView labels,
                           RowShape shape, double margin, Reduction reduction) {
  const auto& kernel = kernels<DistanceKernels<T>>();
  const bool has_gradient = dinput1 != nullptr || dinput2 != nullptr;
  const auto [rows, size] = shape;
  const double time = static_cast<double>(rows) *
                      (static_cast<double>(size) * kNanosecondsAnElement + kNanosecondsARow);
  WorkspaceScope scope(context);
  const RowResults<T> results(context, loss, grad_output, rows, reduction,
                              static_cast<double>(rows));
  const auto all_rows = [&, n = size](const auto* label) {
    const auto one_row = [&](int64_t row) {
      const T *x1 = input1 + row * n, *x2 = input2 + row * n;
      double sums[3];
      kernel.cosine_sums(sums, x1, x2, n);
      const CosineEnd<double> last = cosine_end(
          sums[0], sums[1], sums[2], sign_of_label(label[row]), margin, results.factor(row));
      results.put(row, last.loss);
      if (!has_gradient) return;
      kernel.cosine_gradients(at(dinput1, row * n), at(dinput2, row * n), x1, x2, n,
                              static_cast<T>(last.cross), static_cast<T>(last.own1),
                              static_cast<T>(last.own2));
    };
    parallel_ranges(context, rows, rows_of_a_task(n), time, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) one_row(row);
    });
  };
  if (signs != nullptr) {
    all_rows(signs);
  } else {
    visit(labels, all_rows);
  }
  results.finish();
}

#define TILEGRAD_INSTANTIATE(T)                                                           \
  template void triplet_margin_loss(Context&, T*, Triplet<T>, const T*, Triplet<const T>, \
                                    RowShape, TripletMargin, Reduction);                  \
  template void cosine_embedding_loss(Context&, T*, T*, T*, const T*, const T*, const T*, \
                                      const T*, IndexView, RowShape, double, Reduction);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::cpu
