// SPDX-License-Identifier: MIT
// Math: dtarget[o,c,i] = -(1 - e) w_c logp[o,c,i] g[o,i], e the label smoothing.
// Shapes: (outer, classes, inner); g is one number but for reduction none.
// Parallelism: log_softmax, then the factors, outer index by outer index.
// Memory: logp is written to dtarget and multiplied in place.
#include "../ops.hpp"
#include "parallel.hpp"

namespace tilegrad::cpu {

template <class T>
void cross_entropy_target_backward(Context& context, T* dtarget, const T* grad_output,
                                   const CrossEntropy<T>& problem) {
  const auto [outer, classes, inner] = problem.shape;
  const int64_t rows = outer * inner, line = classes * inner;
  const bool by_row = problem.reduction == Reduction::none;
  const double divisor = problem.reduction == Reduction::mean ? static_cast<double>(rows) : 1;
  const double upstream = grad_output == nullptr || by_row ? 1 : static_cast<double>(*grad_output);
  const T scale = static_cast<T>(-(1 - problem.label_smoothing) * upstream / divisor);
  softmax(context, dtarget, problem.logits, problem.shape, true);
  const T* const gradients = by_row ? grad_output : nullptr;
  const int64_t grain = 4096 / (line + 1) + 1;
  parallel_ranges(context, outer, grain, 0.3 * static_cast<double>(rows * classes),
                  [&](int64_t begin, int64_t end, int) {
                    for (int64_t o = begin; o < end; ++o) {
                      for (int64_t c = 0; c < classes; ++c) {
                        T* const values = dtarget + o * line + c * inner;
                        const T factor =
                            problem.weight == nullptr ? scale : scale * problem.weight[c];
                        for (int64_t i = 0; i < inner; ++i) {
                          const T g = gradients == nullptr ? T(1) : gradients[o * inner + i];
                          values[i] *= factor * g;
                        }
                      }
                    }
                  });
}

// In float, rounded once.
template <>
void cross_entropy_target_backward(Context& context, bfloat16* dtarget, const bfloat16* grad_output,
                                   const CrossEntropy<bfloat16>& problem) {
  const auto [outer, classes, inner] = problem.shape;
  const int64_t n = outer * classes * inner;
  const bool by_row = problem.reduction == Reduction::none;
  WorkspaceScope scope(context);
  const auto widened = [&](const bfloat16* from, int64_t count) {
    float* const values = from == nullptr ? nullptr : context.workspace->take<float>(count);
    if (from != nullptr) convert(context, values, from, count);
    return values;
  };
  CrossEntropy<float> wide{};
  float* const values = widened(problem.logits, n);
  wide.logits = values;
  wide.weight = widened(problem.weight, classes);
  wide.shape = problem.shape;
  wide.reduction = problem.reduction;
  wide.label_smoothing = problem.label_smoothing;
  cross_entropy_target_backward(context, values, widened(grad_output, by_row ? outer * inner : 1),
                                wide);
  convert(context, dtarget, values, n);
}

template void cross_entropy_target_backward(Context&, float*, const float*,
                                            const CrossEntropy<float>&);
template void cross_entropy_target_backward(Context&, double*, const double*,
                                            const CrossEntropy<double>&);

}  // namespace tilegrad::cpu
