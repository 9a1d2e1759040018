// SPDX-License-Identifier: MIT
// Math, shapes: cross_entropy.cpp, on bfloat16 between a widening and a rounding.
// Parallelism, memory: bfloat16_rows.hpp.
#include <algorithm>

#include "../ops.hpp"
#include "bfloat16.hpp"
#include "bfloat16_rows.hpp"
#include "class_targets.hpp"
#include "isa.hpp"
#include "reduce.hpp"
#include "simd/convert.hpp"
#include "simd/cross_entropy.hpp"
#include "variant.hpp"

namespace tilegrad::cpu {

// The order of work is that of cross_entropy.cpp.
template <>
void cross_entropy(Context& context, bfloat16* loss, bfloat16* dlogits, const bfloat16* grad_output,
                   const CrossEntropy<bfloat16>& problem, int64_t* bad_row,
                   std::string_view variant) {
  check_no_variant("cross_entropy", variant);
  const auto& convert = kernels<ConvertKernels>();
  const auto& kernel = kernels<CrossEntropyKernels<float>>();
  const auto [outer, classes, inner] = problem.shape;
  const int64_t rows = outer * inner;
  const bool by_index = problem.indices.data != nullptr;
  const bool by_row = problem.reduction == Reduction::none;
  const double smoothing = problem.label_smoothing;

  WorkspaceScope scope(context);
  float* weight = nullptr;
  if (problem.weight != nullptr) {
    weight = context.workspace->take<float>(classes);
    convert.widen(weight, problem.weight, classes);
  }
  double denominator = classes == 0 ? 0 : static_cast<double>(rows);
  *bad_row = -1;
  if (by_index) {
    const TargetSum targets =
        check_targets(context, problem.indices, rows, classes, problem.ignore_index, weight);
    *bad_row = targets.bad_row;
    if (targets.bad_row >= 0) return;
    denominator = targets.weight;
  }
  if (problem.reduction != Reduction::mean) denominator = 1;
  const double scale =
      (by_row || grad_output == nullptr ? 1.0 : static_cast<double>(widened(*grad_output))) /
      denominator;

  float* const row_loss = loss == nullptr ? nullptr : context.workspace->take<float>(rows);
  if (classes == 0 && row_loss != nullptr) std::fill_n(row_loss, rows, 0.0f);
  if (classes != 0 && (row_loss != nullptr || dlogits != nullptr)) {
    const int buffers = by_index ? 1 : 2;
    for_parts(context, problem.shape, buffers, [&](const Bfloat16Part& part, auto scratch) {
      const float keep = static_cast<float>(1 - smoothing);
      int64_t target[kMaxCrossEntropyRows];
      float hit[kMaxCrossEntropyRows], row_scale[kMaxCrossEntropyRows];
      if (by_index) {
        read_targets(target, problem.indices, part.row, part.count, problem.ignore_index);
      }
      for (int64_t i = 0; i < part.count; ++i) {
        const bool weighted = by_index && weight != nullptr && target[i] != kIgnoredRow;
        hit[i] = !by_index ? 0 : weighted ? keep * weight[target[i]] : keep;
        row_scale[i] = by_row && grad_output != nullptr ? widened(grad_output[part.row + i])
                                                        : static_cast<float>(scale);
      }
      CrossEntropyRows<float> c;
      c.loss = row_loss == nullptr ? nullptr : row_loss + part.row;
      c.logits = scratch(0);
      c.dlogits = dlogits == nullptr ? nullptr : scratch(0);
      c.shape = part.packed();
      c.target = by_index ? target : nullptr;
      c.hit = hit;
      c.scale = row_scale;
      c.soft = !by_index || smoothing != 0;
      c.probabilities = by_index ? nullptr : scratch(1);
      c.weight = weight;
      c.keep = keep;
      c.floor = static_cast<float>(smoothing / static_cast<double>(classes));
      c.scratch = scratch(buffers);
      part.widen(convert, scratch(0), problem.logits);
      if (!by_index) part.widen(convert, scratch(1), problem.probabilities);
      kernel.rows(c);
      if (dlogits != nullptr) part.narrow(convert, dlogits, scratch(0));
    });
  }
  if (loss == nullptr) return;
  if (by_row) {
    convert.narrow(loss, row_loss, rows);
  } else {
    *loss = rounded(static_cast<float>(sum_all(context, row_loss, rows) / denominator));
  }
}

}  // namespace tilegrad::cpu
