// SPDX-License-Identifier: MIT
// The walks of ctc_loss through time.
//
// Math:        states in pairs (blank i before label i, label i), y the log-probabilities:
//              A_t[blank i] = y_t[blank] + lse(A[blank i], A[label i-1]), A of time t - 1,
//              A_t[label i] = y_t[label i] + lse(A[label i], A[blank i], A[label i-1] if it
//              differs); B the same with labels and time turned round, but without y_t.
// Shapes:      y (time, batch, classes); A and B (time, 2, pairs) of a sample, pairs = labels + 1.
// Parallelism: a block for each of A and B of a sample, a thread for each pair (or every 512th).
// Memory:      the states of two times lie in shared memory (in workspace, if they are too many),
//              those of all times, for a gradient, in workspace, coalesced; what the walk back
//              reads or leaves turned round may cost a warp one sector more. States are double:
//              in float the error would grow with |A|, that is with time. Labels gather y, one
//              sector each, a step before it is needed.
#pragma once

#include "class_index.cuh"
#include "reduce.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

inline constexpr int kCtcWalkThreads = 512;
inline constexpr int64_t kCtcListSamples = 128;  // of a launch: their lengths are its arguments
inline constexpr double kNoPath = -INFINITY;

struct CtcSampleList {
  int64_t input_length[kCtcListSamples], target_length[kCtcListSamples],
      target_start[kCtcListSamples];
};
static_assert(sizeof(CtcSampleList) <= 3072, "kernel arguments have 4 KB");

// What the gradient needs of a sample.
struct CtcOutcome {
  double log_likelihood, scale;
  int64_t times, labels;  // no times where the gradient is zero
};

template <class T>
struct CtcArguments {
  T* loss;         // (batch), or null
  double* losses;  // (batch): what a sum adds up, or null
  T* dlog_probs;   // or null
  const T* grad_output;
  const T* log_probs;
  IndexView targets;
  int64_t time, batch, classes, blank;
  int64_t first_sample, most_time, width;  // of this launch; a row has `width` pairs
  double* states;                          // (samples, A or B, most_time, 2, width), or null
  double* rows;                            // what shared memory cannot hold, or null
  int64_t *labels, *links;                 // (samples, width), or null
  CtcOutcome* outcomes;                    // (samples)
  bool is_mean, by_sample, zero_infinity;

  __device__ int64_t offset(int64_t t, int64_t sample) const {
    return (t * batch + first_sample + sample) * classes;
  }
  __device__ double* row(int64_t sample, int back, int64_t t) const {
    return states + ((sample * 2 + back) * most_time + t) * 2 * width;
  }
};

// The logarithm of a sum of exponentials. The largest leaves the sum first, so that no exponential
// is above 1; where all are -inf its place takes 0, as -inf - -inf would be NaN.
template <class T>
__device__ inline double ctc_log_sum(double a, double b, double c) {
  const double first = max(a, b), low = min(a, b), high = max(first, c), middle = min(first, c);
  const double base = high == kNoPath ? 0.0 : high;
  return high + static_cast<double>(
                    log1p(exp(static_cast<T>(low - base)) + exp(static_cast<T>(middle - base))));
}

// One number a pair each, (width) all of them: labels in the order of the walk, their y at this
// step, the states of two steps.
struct CtcWalkMemory {
  int64_t* labels;
  double* emission;
  double* states;
  int64_t width;

  static constexpr int64_t kNumbers = 6;
  __device__ CtcWalkMemory(double* memory, int64_t width)
      : labels(reinterpret_cast<int64_t*>(memory)),
        emission(memory + width),
        states(memory + 2 * width),
        width(width) {}
  __device__ double* row(int64_t step) const { return states + (step & 1) * 2 * width; }
};

template <class T>
__global__ void __launch_bounds__(kCtcWalkThreads)
    ctc_loss_walk_kernel(CtcArguments<T> a, const __grid_constant__ CtcSampleList list) {
  grid_dependency_wait();
  const int64_t sample = blockIdx.x;
  const int back = static_cast<int>(blockIdx.y);  // 0 walks forward and gives A, 1 gives B
  const int64_t time = list.input_length[sample], count = list.target_length[sample];
  double* memory = dynamic_smem<double>();
  if (a.rows != nullptr) memory = a.rows + (2 * sample + back) * CtcWalkMemory::kNumbers * a.width;
  const CtcWalkMemory m(memory, a.width);
  const int64_t tid = threadIdx.x, threads = blockDim.x;
  const auto y_at = [&](int64_t step) {
    return a.log_probs + a.offset(back != 0 ? time - 1 - step : step, sample);
  };

  bool bad = false;
  for (int64_t i = tid; i < count; i += threads) {
    const int64_t place = back != 0 ? count - 1 - i : i;
    int64_t label = index_at(a.targets, list.target_start[sample] + place);
    if (label < 0 || label >= a.classes) {
      bad = true;
      label = a.blank;
    }
    m.labels[i] = label;
  }
  // Every label is written.
  bad = __syncthreads_or(bad) != 0;
  if (a.labels != nullptr && back == 0) {
    for (int64_t i = tid; i < count; i += threads) {
      // Where the class comes next, or past the end; as ~ of it where this is not its first.
      bool first = true;
      for (int64_t j = 0; j < i; ++j) first = first && m.labels[j] != m.labels[i];
      int64_t next = i + 1;
      while (next < count && m.labels[next] != m.labels[i]) ++next;
      a.labels[sample * a.width + i] = m.labels[i];
      a.links[sample * a.width + i] = first ? next : ~next;
    }
  }

  // What a step needs of y is on its way since the step before.
  double blank_y = 0;
  if (time > 0) {
    blank_y = widen(y_at(0)[a.blank]);
    for (int64_t i = tid; i <= count; i += threads) {
      m.emission[i] = i < count ? widen(y_at(0)[m.labels[i]]) : kNoPath;
    }
  }
  for (int64_t step = 0; step < time; ++step) {
    const T* const y = step + 1 < time ? y_at(step + 1) : nullptr;
    const double next_blank_y = y == nullptr ? kNoPath : widen(y[a.blank]);
    const double* const last = m.row(step - 1);
    double* const next = m.row(step);
    double* const kept =
        a.states == nullptr ? nullptr : a.row(sample, back, back != 0 ? time - 1 - step : step);
    for (int64_t i = tid; i <= count; i += threads) {
      const double next_y = y != nullptr && i < count ? widen(y[m.labels[i]]) : kNoPath;
      double blank = i == 0 ? 0 : kNoPath, label = blank;
      if (step > 0) {
        blank = last[i], label = last[a.width + i];
        const double before = i > 0 ? last[a.width + i - 1] : kNoPath;
        const bool differs = i > 0 && i < count && m.labels[i] != m.labels[i - 1];
        label = ctc_log_sum<T>(label, blank, differs ? before : kNoPath);
        blank = ctc_log_sum<T>(blank, before, kNoPath);
      }
      next[i] = blank + blank_y;
      next[a.width + i] = label + m.emission[i];
      m.emission[i] = next_y;
      if (kept == nullptr) continue;
      if (back == 0) {
        kept[i] = next[i];
        kept[a.width + i] = next[a.width + i];
      } else {
        kept[count - i] = blank;
        if (i < count) kept[a.width + count - 1 - i] = label;
      }
    }
    blank_y = next_blank_y;
    // This step's states are written, those of the one before are read.
    __syncthreads();
  }
  if (back != 0 || tid != 0) return;

  double log_likelihood = count == 0 ? 0 : kNoPath;
  if (time > 0) {
    const double* const end = m.row(time - 1);
    log_likelihood =
        ctc_log_sum<T>(end[count], count > 0 ? end[a.width + count - 1] : kNoPath, kNoPath);
  }
  const bool zero = a.zero_infinity && log_likelihood == kNoPath;
  const double divisor = a.is_mean && count > 0 ? static_cast<double>(count) : 1;
  const double loss = bad ? static_cast<double>(NAN) : zero ? 0.0 : 0.0 - log_likelihood;
  const int64_t n = a.first_sample + sample;
  if (a.loss != nullptr) a.loss[n] = static_cast<T>(loss);
  if (a.losses != nullptr) a.losses[n] = loss / divisor;
  if (a.outcomes == nullptr) return;
  double scale = a.grad_output == nullptr ? 1.0 : widen(a.grad_output[a.by_sample ? n : 0]);
  if (a.is_mean) scale /= divisor * static_cast<double>(a.batch);
  if (!isfinite(log_likelihood)) scale = static_cast<double>(NAN);
  a.outcomes[sample] = {log_likelihood, scale, bad || zero ? 0 : time, count};
}

}  // namespace tilegrad::TILEGRAD_BACKEND
