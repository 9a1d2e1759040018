// SPDX-License-Identifier: MIT
// The ctc_loss kernels that every ISA supplies.
#pragma once

#include <cstdint>

namespace tilegrad::cpu {

// The states of a sample at one time lie in pairs: pair i is the blank before label i, and label i;
// the last pair has no label. A row holds the blanks of all pairs and then the labels, each
// followed by kCtcPad elements of -inf: what lies outside of the lattice.
constexpr int64_t kCtcPad = 8;  // no vector of double is longer
constexpr int64_t ctc_width(int64_t labels) { return (labels + kCtcPad) / kCtcPad * kCtcPad; }
constexpr int64_t ctc_row_size(int64_t labels) { return 2 * (ctc_width(labels) + kCtcPad); }
// Two rows of the backward recursion, and three arrays of a number for each pair.
constexpr int64_t ctc_scratch_size(int64_t labels) {
  return 2 * ctc_row_size(labels) + 3 * (ctc_width(labels) + kCtcPad);
}

// A sample with at least one time.
template <class T>
struct CtcSample {
  T* grad;             // null where backward is not called
  const T* log_probs;  // of class c at time t: log_probs[t * step + c]; grad is like it
  int64_t step, time, classes, blank;
  const int64_t* labels;  // (count)
  int64_t count;
  double* alpha;    // a row for each time; two where grad is null
  double* scratch;  // ctc_scratch_size()
  double* sums;     // (classes), which are 0 before and afterwards
};

template <class T>
struct CtcKernels {
  // Fills alpha; returns the logarithm of the likelihood.
  double (*forward)(const CtcSample<T>&);
  // After forward: grad = scale (exp(log_probs) - share of the paths). NaN if either factor is.
  void (*backward)(const CtcSample<T>&, double log_likelihood, double scale);
};

}  // namespace tilegrad::cpu
