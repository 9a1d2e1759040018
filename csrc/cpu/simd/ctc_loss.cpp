// SPDX-License-Identifier: MIT
// Math: with y the log-probabilities, and states in pairs (blank i before label i, label i),
//     A_t[blank i] = y_t[blank] + lse(A[blank i], A[label i-1])            (A, B of a neighbour in
//     t) A_t[label i] = y_t[label i] + lse(A[label i], A[blank i], A[label i-1] if the labels
//     differ)
//   and B_t[s] the same from the end of time, without y_t. Z = lse(A of the last two states),
//   share of s = exp(A_t[s] + B_t[s] - Z), dx_t[c] = g (exp(y_t[c]) - sum of the shares of c).
// Shapes: one sample, y (time, classes) with rows `step` apart; rows of states as in ctc_loss.hpp.
// Parallelism: neighbouring pairs in the lanes. Every lane has the bits of a single one, so a sum
//   over labels of one class, which is added in the order of the labels, is the only order there
//   is.
// Memory: states are double for either T: 16 bytes a pair and time, written once and read once. In
//   float the error would grow with |A|, that is with time.
// Source: Graves, Fernandez, Gomez, Schmidhuber, Connectionist Temporal Classification, ICML 2006.
#include "ctc_loss.hpp"

#include "../isa.hpp"
#include "softmax_exp.hpp"
#include "vectors.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

using D = Vec<double>;
constexpr double kNone = -__builtin_inf();

// log(1 + x) for 0 <= x <= 2, or NaN, within 2 ulp. 2 artanh(f / (2 + f)) of f = x or, above a
// half, of 1 + f = (1 + x) / 2: its square is at most 1/25, and the remainder of the series 2^-55.
TILEGRAD_INLINE D log_one_plus(D x) {
  const Mask<D> halved = x > 0.5;
  const D f = select(halved, fma(0.5, x, -0.5), x);
  const D s = f / (2.0 + f), q = s * s, q2 = q * q;
  constexpr double c[] = {1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9,  1.0 / 11,
                          1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21};
  D p = fma(q, D(c[9]), D(c[8]));
#pragma GCC unroll 8
  for (int k = 6; k >= 0; k -= 2) p = fma(q2, p, fma(q, D(c[k + 1]), D(c[k])));
  const D twice = s + s;
  return fma(twice * q, p, twice) + select(halved, D(0.69314718055994531), D(0.0));
}

// The logarithm of a sum of exponentials. The largest leaves the sum first, so that no exponential
// is above 1; where all are -inf its place takes 0, as -inf - -inf would be NaN.
TILEGRAD_INLINE D log_sum(D a, D b) {
  const D high = max(a, b), low = min(a, b);
  const D base = select(high == kNone, 0.0, high);
  return high + log_one_plus(softmax_exp(low - base));
}
TILEGRAD_INLINE D log_sum(D a, D b, D c) {
  const D first = max(a, b), low = min(a, b), high = max(first, c), middle = min(first, c);
  const D base = select(high == kNone, 0.0, high);
  return high + log_one_plus(softmax_exp(low - base) + softmax_exp(middle - base));
}

struct Row {
  double* blank;
  double* label;  // label[-1] is -inf too
};

// What lies where in the scratch memory of a sample.
template <class T>
struct Scratch {
  int64_t width, row_size;
  double *rows, *emission, *skip, *share;

  explicit Scratch(const CtcSample<T>& x)
      : width(ctc_width(x.count)), row_size(ctc_row_size(x.count)), rows(x.scratch) {
    const int64_t padded = width + kCtcPad;
    emission = rows + 2 * row_size;
    skip = emission + padded;
    share = skip + padded;
  }

  Row row(double* p) const { return {p, p + width + kCtcPad}; }
  Row beta(int64_t t) const { return row(rows + (t & 1) * row_size); }
  static void clear(double* p, int64_t n) {
    for (int64_t i = 0; i < n; ++i) p[i] = kNone;
  }
  void clear_pads(Row r) const {
    clear(r.blank + width, kCtcPad);
    clear(r.label + width, kCtcPad);
  }
};

// The log-probabilities of the labels at a time, side by side.
template <class T>
TILEGRAD_INLINE void gather(double* emission, const T* log_probs, const CtcSample<T>& x) {
  for (int64_t i = 0; i < x.count; ++i) {
    emission[i] = static_cast<double>(log_probs[x.labels[i]]);
  }
}

template <class T>
[[gnu::flatten]] double forward(const CtcSample<T>& arguments) {
  const CtcSample<T> x = arguments;
  const Scratch<T> s(x);
  s.clear(s.emission + x.count, s.width - x.count);
  // skip[i] is 1 where label i may follow label i - 1 without a blank between them.
  for (int64_t i = 0; i < s.width + kCtcPad; ++i) {
    s.skip[i] = i > 0 && i < x.count && x.labels[i] != x.labels[i - 1] ? 1 : 0;
  }
  Row next = s.row(x.alpha);
  s.clear(next.blank, s.row_size);
  gather(s.emission, x.log_probs, x);
  next.blank[0] = static_cast<double>(x.log_probs[x.blank]);
  next.label[0] = s.emission[0];
  for (int64_t t = 1; t < x.time; ++t) {
    const Row last = next;
    next = s.row(x.alpha + (x.grad != nullptr ? t : t & 1) * s.row_size);
    s.clear_pads(next);
    const T* const y = x.log_probs + t * x.step;
    gather(s.emission, y, x);
    const D blank_y = static_cast<double>(y[x.blank]);
    for (int64_t i = 0; i < s.width; i += D::kSize) {
      const D blank = D::load(last.blank + i), label = D::load(last.label + i);
      const D before = D::load(last.label + i - 1);
      const D jump = select(D::load(s.skip + i) > 0.0, before, D(kNone));
      (log_sum(blank, before) + blank_y).store(next.blank + i);
      (log_sum(label, blank, jump) + D::load(s.emission + i)).store(next.label + i);
    }
  }
  return log_sum(D(next.blank[x.count]), D(next.label[x.count - 1]))[0];
}

// B_t from what B and y are together at t + 1, for all pairs; that sum at t goes to `here`. The
// shares of the labels are stored, those of the blanks added up.
TILEGRAD_INLINE double step_back(Row here, Row later, Row alpha, const double* skip,
                                 const double* emission, double* share, double blank_y,
                                 double log_likelihood, int64_t width, bool at_end) {
  D blank_shares = 0.0;
  for (int64_t i = 0; i < width; i += D::kSize) {
    D blank = D::load(later.blank + i), label = D::load(later.label + i);
    if (!at_end) {
      const D after = D::load(later.blank + i + 1);
      const D beyond = D::load(later.label + i + 1);
      const D jump = select(D::load(skip + i + 1) > 0.0, beyond, D(kNone));
      blank = log_sum(blank, label);
      label = log_sum(label, after, jump);
    }
    blank_shares += softmax_exp(D::load(alpha.blank + i) + blank - log_likelihood);
    softmax_exp(D::load(alpha.label + i) + label - log_likelihood).store(share + i);
    (blank + blank_y).store(here.blank + i);
    (label + D::load(emission + i)).store(here.label + i);
  }
  return reduce_add(blank_shares);
}

template <class T>
[[gnu::flatten]] void backward(const CtcSample<T>& arguments, double log_likelihood, double scale) {
  using V = Vec<T>;
  const CtcSample<T> x = arguments;
  const Scratch<T> s(x);
  // At the end of time the last blank and the last label are as good as sure: log 1.
  Row later = s.beta(x.time);
  s.clear(s.rows, 2 * s.row_size);
  later.blank[x.count] = 0;
  if (x.count > 0) later.label[x.count - 1] = 0;
  const V factor = static_cast<T>(scale);
  for (int64_t t = x.time - 1; t >= 0; --t) {
    const T* const y = x.log_probs + t * x.step;
    T* const dy = x.grad + t * x.step;
    gather(s.emission, y, x);
    const Row here = s.beta(t);
    const double blanks =
        step_back(here, later, s.row(x.alpha + t * s.row_size), s.skip, s.emission, s.share,
                  static_cast<double>(y[x.blank]), log_likelihood, s.width, t == x.time - 1);
    later = here;
    for_vectors<V>(0, x.classes, [&](int64_t c, int, auto access) {
      access.store(dy + c, exp(access.load(y + c)) * factor);
    });
    // A class may be that of several labels; the first that comes takes the sum of all.
    for (int64_t i = 0; i < x.count; ++i) x.sums[x.labels[i]] += s.share[i];
    x.sums[x.blank] += blanks;
    for (int64_t i = -1; i < x.count; ++i) {
      const int64_t c = i < 0 ? x.blank : x.labels[i];
      if (x.sums[c] == 0) continue;
      dy[c] = static_cast<T>(static_cast<double>(dy[c]) - scale * x.sums[c]);
      x.sums[c] = 0;
    }
  }
}

template <class T>
constexpr CtcKernels<T> kTable = {forward<T>, backward<T>};

}  // namespace

template <>
const CtcKernels<float>& table() {
  return kTable<float>;
}
template <>
const CtcKernels<double>& table() {
  return kTable<double>;
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
