// SPDX-License-Identifier: MIT
// ctc_loss: first the labels are read and checked, then each sample is a task: its loss from a walk
// forward through time, its gradient from one backward (simd/ctc_loss.cpp). The losses are added in
// the order of the samples.
#include "simd/ctc_loss.hpp"

#include <algorithm>
#include <cmath>

#include "../ops.hpp"
#include "class_targets.hpp"
#include "isa.hpp"
#include "parallel.hpp"
#include "reduce.hpp"

namespace tilegrad::cpu {
namespace {

constexpr double kNanosecondsAPair = 4;   // two states, one way through time
constexpr double kNanosecondsAClass = 1;  // an exponential
constexpr int64_t kCacheLine = 64 / sizeof(double);

// labels = those of all samples, one sample after the other. Returns the place of the first that is
// no class, or -1.
template <class T>
int64_t read_labels(int64_t* labels, const CtcLoss<T>& p) {
  int64_t bad = -1;
  visit(p.targets, [&](const auto* targets) {
    for (int64_t n = 0; n < p.batch && bad < 0; ++n) {
      const int64_t begin = p.target_starts[n];
      for (int64_t i = begin; i < begin + p.target_lengths[n]; ++i) {
        const int64_t label = to_class(targets[i]);
        if (label < 0 || label >= p.classes) {
          bad = i;
          return;
        }
        *labels++ = label;
      }
    }
  });
  return bad;
}

}  // namespace

template <class T>
void ctc_loss(Context& context, T* loss, T* dlog_probs, const T* grad_output, const CtcLoss<T>& p,
              int64_t* bad_target) {
  const auto& kernel = kernels<CtcKernels<T>>();
  const bool by_sample = p.reduction == Reduction::none;
  const bool is_mean = p.reduction == Reduction::mean;
  int64_t most_labels = 0, most_time = 0, all_labels = 0;
  for (int64_t n = 0; n < p.batch; ++n) {
    most_labels = std::max(most_labels, p.target_lengths[n]);
    most_time = std::max(most_time, p.input_lengths[n]);
    all_labels += p.target_lengths[n];
  }

  WorkspaceScope scope(context);
  int64_t* const labels = context.workspace->take<int64_t>(all_labels + p.batch);
  int64_t* const first_label = labels + all_labels;
  *bad_target = read_labels(labels, p);
  if (*bad_target >= 0) return;
  for (int64_t n = 0, at = 0; n < p.batch; at += p.target_lengths[n++]) first_label[n] = at;

  double* const losses = context.workspace->take<double>(p.batch);
  const bool has_gradient = dlog_probs != nullptr;
  const int64_t kept_rows = has_gradient ? most_time : std::min<int64_t>(most_time, 2);
  const int64_t alpha_size = kept_rows * ctc_row_size(most_labels);
  const int64_t scratch_size = ctc_scratch_size(most_labels);
  const int64_t thread_size = alpha_size + scratch_size + p.classes + kCacheLine;
  const int64_t threads = std::min<int64_t>(thread_limit(context), p.batch);
  double* const memory = context.workspace->take<double>(threads * thread_size);
  for (int64_t thread = 0; thread < threads; ++thread) {
    std::fill_n(memory + thread * thread_size, p.classes, 0.0);
  }

  const double pairs = static_cast<double>(all_labels + p.batch);
  const double elements = static_cast<double>(p.batch) * static_cast<double>(p.classes);
  const double time = static_cast<double>(most_time) *
                      (has_gradient ? 2 * kNanosecondsAPair * pairs + kNanosecondsAClass * elements
                                    : kNanosecondsAPair * pairs);
  parallel_for(context, p.batch, time, [&](int64_t n, int thread) {
    const int64_t offset = n * p.classes, step = p.batch * p.classes, count = p.target_lengths[n];
    double* const sums = memory + thread * thread_size;
    T* const grad = has_gradient ? dlog_probs + offset : nullptr;
    CtcSample<T> sample{};
    sample.grad = grad;
    sample.log_probs = p.log_probs + offset;
    sample.step = step;
    sample.time = p.input_lengths[n];
    sample.classes = p.classes;
    sample.blank = p.blank;
    sample.labels = labels + first_label[n];
    sample.count = count;
    sample.sums = sums;
    sample.alpha = sums + p.classes;
    sample.scratch = sample.alpha + alpha_size;
    // Without a time there is the path of no labels, and no other.
    const double log_likelihood =
        sample.time > 0 ? kernel.forward(sample) : (count == 0 ? 0.0 : -INFINITY);
    const bool zero = p.zero_infinity && log_likelihood == -INFINITY;
    const double divisor = is_mean ? static_cast<double>(std::max<int64_t>(count, 1)) : 1;
    losses[n] = zero ? 0 : (0 - log_likelihood) / divisor;
    if (by_sample && loss != nullptr) loss[n] = static_cast<T>(losses[n]);
    if (!has_gradient) return;
    int64_t t = 0;
    if (sample.time > 0 && !zero) {
      double scale = grad_output == nullptr ? 1 : grad_output[by_sample ? n : 0];
      if (is_mean) scale /= divisor * static_cast<double>(p.batch);
      kernel.backward(sample, log_likelihood, std::isfinite(log_likelihood) ? scale : NAN);
      t = sample.time;
    }
    for (; t < p.time; ++t) std::fill_n(grad + t * step, p.classes, T(0));
  });
  if (by_sample || loss == nullptr) return;
  const double sum = sum_all(context, losses, p.batch);
  *loss = static_cast<T>(is_mean ? sum / static_cast<double>(p.batch) : sum);
}

template void ctc_loss(Context&, float*, float*, const float*, const CtcLoss<float>&, int64_t*);
template void ctc_loss(Context&, double*, double*, const double*, const CtcLoss<double>&, int64_t*);

}  // namespace tilegrad::cpu
