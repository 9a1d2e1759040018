// SPDX-License-Identifier: MIT
// cross_entropy: first the targets are checked and the mean's denominator is added up, then one
// pass over the logits gives loss and gradient (simd/cross_entropy.cpp), then the rows' losses are
// added. Both sums have an order that depends on the number of rows only.
#include "simd/cross_entropy.hpp"

#include <algorithm>

#include "../ops.hpp"
#include "class_chunks.hpp"
#include "class_targets.hpp"
#include "isa.hpp"
#include "parallel.hpp"
#include "reduce.hpp"
#include "variant.hpp"

namespace tilegrad::cpu {
namespace {

static_assert(kChunkRows <= kMaxCrossEntropyRows);

constexpr double kNanosecondsAnElement = 0.6;  // an exponential and three passes in cache

// The kernel's view of a chunk of rows: the targets as int64_t, with their weights and scales.
template <class T>
class ChunkTargets {
 public:
  void read(const CrossEntropy<T>& problem, const ClassChunk& chunk, const T* grad_output,
            double scale) {
    const bool by_index = problem.indices.data != nullptr;
    const T keep = static_cast<T>(1 - problem.label_smoothing);
    if (by_index) {
      read_targets(class_, problem.indices, chunk.row, chunk.rows.rows, problem.ignore_index);
    }
    for (int64_t i = 0; i < chunk.rows.rows; ++i) {
      const bool weighted = by_index && problem.weight != nullptr && class_[i] != kIgnoredRow;
      hit_[i] = !by_index ? T(0) : weighted ? keep * problem.weight[class_[i]] : keep;
      scale_[i] = grad_output != nullptr ? grad_output[chunk.row + i] : static_cast<T>(scale);
    }
  }
  const int64_t* classes() const { return class_; }
  const T* hit() const { return hit_; }
  const T* scale() const { return scale_; }

 private:
  int64_t class_[kChunkRows];
  T hit_[kChunkRows];
  T scale_[kChunkRows];
};

}  // namespace

template <class T>
void cross_entropy(Context& context, T* loss, T* dlogits, const T* grad_output,
                   const CrossEntropy<T>& problem, int64_t* bad_row, std::string_view variant) {
  check_no_variant("cross_entropy", variant);
  const auto& kernel = kernels<CrossEntropyKernels<T>>();
  const auto [outer, classes, inner] = problem.shape;
  const int64_t rows = outer * inner;
  const bool by_index = problem.indices.data != nullptr;
  const bool by_row = problem.reduction == Reduction::none;
  const double smoothing = problem.label_smoothing;

  // Without classes a row has no loss, and their mean is over nothing.
  double denominator = classes == 0 ? 0 : static_cast<double>(rows);
  *bad_row = -1;
  if (by_index) {
    const TargetSum targets = check_targets(context, problem.indices, rows, classes,
                                            problem.ignore_index, problem.weight);
    *bad_row = targets.bad_row;
    if (targets.bad_row >= 0) return;
    denominator = targets.weight;
  }
  if (problem.reduction != Reduction::mean) denominator = 1;
  const double scale =
      (by_row || grad_output == nullptr ? 1.0 : static_cast<double>(*grad_output)) / denominator;

  WorkspaceScope scope(context);
  T* row_loss = loss == nullptr || by_row ? loss : context.workspace->take<T>(rows);
  if (classes == 0 && row_loss != nullptr) std::fill_n(row_loss, rows, T(0));
  if (classes != 0 && (row_loss != nullptr || dlogits != nullptr)) {
    const int64_t result = dlogits == nullptr || dlogits == problem.logits
                               ? 0
                               : rows * classes * static_cast<int64_t>(sizeof(T));
    const auto one_chunk = [&](const ClassChunk& chunk) {
      const auto at = [](auto* p, int64_t i) { return p == nullptr ? nullptr : p + i; };
      ChunkTargets<T> targets;
      targets.read(problem, chunk, by_row ? grad_output : nullptr, scale);
      CrossEntropyRows<T> c;
      c.loss = at(row_loss, chunk.row);
      c.dlogits = at(dlogits, chunk.offset);
      c.logits = problem.logits + chunk.offset;
      c.shape = chunk.rows;
      c.target = by_index ? targets.classes() : nullptr;
      c.hit = targets.hit();
      c.scale = targets.scale();
      c.soft = !by_index || smoothing != 0;
      c.probabilities = by_index ? nullptr : problem.probabilities + chunk.offset;
      c.weight = problem.weight;
      c.keep = static_cast<T>(1 - smoothing);
      c.floor = static_cast<T>(smoothing / static_cast<double>(classes));
      c.scratch = chunk.scratch;
      kernel.rows(c);
    };
    for_class_chunks(context, problem.shape, kNanosecondsAnElement, result, one_chunk);
  }
  if (loss != nullptr && !by_row) {
    *loss = static_cast<T>(sum_all(context, row_loss, rows) / denominator);
  }
}

template void cross_entropy(Context&, float*, float*, const float*, const CrossEntropy<float>&,
                            int64_t*, std::string_view);
template void cross_entropy(Context&, double*, double*, const double*, const CrossEntropy<double>&,
                            int64_t*, std::string_view);

}  // namespace tilegrad::cpu
