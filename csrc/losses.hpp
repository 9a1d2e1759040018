// SPDX-License-Identifier: MIT
// Elementwise losses: the loss of one element and its derivatives, once for all backends.
//
// V is a value type as in activations.hpp, with log and max besides; max lets NaN pass. Operands
// are a, b and c in the order of the public function; a loss of two ignores c. A struct has
//   value(a, b, c)                    the loss
//   by_a(a, b, c), by_b(...), by_c    its derivatives; absent where there is none
// NaN propagates; ties follow PyTorch.
#pragma once

#include "activations.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

// log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)): it does not overflow.
template <class V>
TILEGRAD_HOST_DEVICE inline V log_one_plus_exp(V x) {
  return max(x, V(0)) + log1p(exp(-abs(x)));
}

// For losses of d = a - b: value(d) and slope(d), the derivative by a; that by b is its opposite.
template <class Loss>
struct OfDifference {
  Loss of;

  template <class V>
  TILEGRAD_HOST_DEVICE V value(V a, V b, V) const {
    return of.value(a - b);
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V by_a(V a, V b, V) const {
    return of.slope(a - b);
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V by_b(V a, V b, V) const {
    return -of.slope(a - b);
  }
};

// d^2.
struct Squared {
  template <class V>
  TILEGRAD_HOST_DEVICE V value(V d) const {
    return d * d;
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V slope(V d) const {
    return V(2) * d;
  }
};

// |d|; the slope at 0 is 0, and at a NaN, as torch has it.
struct Absolute {
  template <class V>
  TILEGRAD_HOST_DEVICE V value(V d) const {
    return abs(d);
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V slope(V d) const {
    return select(d > V(0), V(1), select(d < V(0), V(-1), V(0)));
  }
};

// d^2 / (2 beta) where |d| < beta, else |d| - beta / 2; beta > 0. Girshick 2015, arXiv:1504.08083.
struct SmoothAbsolute {
  double beta;

  template <class V>
  TILEGRAD_HOST_DEVICE V value(V d) const {
    const V z = abs(d);
    return select(z < V(beta), V(0.5) * z * z / V(beta), z - V(0.5 * beta));
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V slope(V d) const {
    return select(d <= V(-beta), V(-1), select(d >= V(beta), V(1), d / V(beta)));
  }
};

// d^2 / 2 where |d| < delta, else delta (|d| - delta / 2). Huber 1964.
struct Huber {
  double delta;

  template <class V>
  TILEGRAD_HOST_DEVICE V value(V d) const {
    const V z = abs(d);
    return select(z < V(delta), V(0.5) * z * z, V(delta) * (z - V(0.5 * delta)));
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V slope(V d) const {
    return select(d <= V(-delta), V(-delta), select(d >= V(delta), V(delta), d));
  }
};

// -t log x - (1 - t) log(1 - x), a logarithm at least -100; dx = (x - t) / max(x (1 - x), 1e-12),
// with torch's 1e-12, a float. NaN where x or t is outside [0, 1].
struct BinaryCrossEntropy {
  template <class V>
  TILEGRAD_HOST_DEVICE V value(V x, V t, V) const {
    const V rest = V(1) - t;
    const V loss = -(rest * max(log1p(-x), V(-100)) + t * max(log(x), V(-100)));
    return select(rest * t < V(0), V(__builtin_nan("")), loss);
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V by_a(V x, V t, V) const {
    return (x - t) / max((V(1) - x) * x, V(1e-12f));
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V by_b(V x, V, V) const {
    return log1p(-x) - log(x);
  }
};

// The same of s = sigmoid(x), t weighted by p: (1 - t) log(1 + exp x) + p t log(1 + exp(-x)), whose
// logarithms are those of 1 + exp(-|x|) and max(x, 0) or max(-x, 0). By x it is
// (1 - t) s - p t (1 - s). Nothing overflows or cancels.
struct BinaryCrossEntropyWithLogits {
  template <class V>
  TILEGRAD_HOST_DEVICE V value(V x, V t, V p) const {
    const V rest = log1p(exp(-abs(x)));
    return (V(1) - t) * (max(x, V(0)) + rest) + p * t * (max(-x, V(0)) + rest);
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V by_a(V x, V t, V p) const {
    const SigmoidPair<V> s = sigmoid_pair(x);
    return (V(1) - t) * s.s - p * t * s.c;
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V by_b(V x, V, V p) const {
    return (p - V(1)) * log_one_plus_exp(-x) - x;
  }
};

// The rate r is exp(x), or x itself: r - t log r, with Stirling's formula for log t! where `full`
// and t > 1. Without logarithm log(x + eps).
struct PoissonNll {
  bool log_input;
  bool full;
  double eps;

  template <class V>
  TILEGRAD_HOST_DEVICE V value(V x, V t, V) const {
    const V loss = log_input ? exp(x) - t * x : x - t * log(x + V(eps));
    if (!full) return loss;
    const V stirling = t * log(t) - t + V(0.5) * log(V(6.283185307179586) * t);
    return loss + select(t <= V(1), V(0), stirling);
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V by_a(V x, V t, V) const {
    return log_input ? exp(x) - t : V(1) - t / (x + V(eps));
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V by_b(V x, V t, V) const {
    const V slope = -(log_input ? x : log(x + V(eps)));
    if (!full) return slope;
    return slope + select(t <= V(1), V(0), log(t) + V(0.5) / t);
  }
};

// (log v + (x - t)^2 / v) / 2 with v = max(var, eps), and log(2 pi) / 2 more where `full`. The
// derivative by var is that by v, also below eps. Nix, Weigend 1994. A negative var is NaN.
struct GaussianNll {
  bool full;
  double eps;

  template <class V>
  TILEGRAD_HOST_DEVICE V value(V x, V t, V var) const {
    const V v = bounded(var), d = x - t;
    const V loss = V(0.5) * (log(v) + d * d / v);
    return full ? loss + V(0.9189385332046727) : loss;
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V by_a(V x, V t, V var) const {
    return (x - t) / bounded(var);
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V by_b(V x, V t, V var) const {
    return (t - x) / bounded(var);
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V by_c(V x, V t, V var) const {
    const V v = bounded(var), d = (x - t) / v;
    return V(0.5) * (V(1) / v - d * d);
  }

 private:
  template <class V>
  TILEGRAD_HOST_DEVICE V bounded(V var) const {
    return select(var < V(0), V(__builtin_nan("")), max(var, V(eps)));
  }
};

// t (log t - x) with 0 log 0 = 0; where log_target t is given by its logarithm. By t it is
// log t + t/t - x, so NaN at 0, as torch has it.
struct KlDivergence {
  bool log_target;

  template <class V>
  TILEGRAD_HOST_DEVICE V value(V x, V t, V) const {
    if (log_target) return exp(t) * (t - x);
    return select(t == V(0), V(0), t * log(t)) - t * x;
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V by_a(V, V t, V) const {
    return log_target ? -exp(t) : -t;
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V by_b(V x, V t, V) const {
    if (log_target) return exp(t) * (t - x + V(1));
    return select(t == V(0), V(0), log(t)) + t / t - x;
  }
};

// max(0, margin - t (a - b)); at the bound the derivative is that of the inside.
struct MarginRanking {
  double margin;

  template <class V>
  TILEGRAD_HOST_DEVICE V value(V a, V b, V t) const {
    return max(inside(a, b, t), V(0));
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V by_a(V a, V b, V t) const {
    return V(0) - reaches(a, b, t) * t;
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V by_b(V a, V b, V t) const {
    return reaches(a, b, t) * t;
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V by_c(V a, V b, V t) const {
    return reaches(a, b, t) * (b - a);
  }

 private:
  template <class V>
  TILEGRAD_HOST_DEVICE V inside(V a, V b, V t) const {
    return V(margin) - t * (a - b);
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V reaches(V a, V b, V t) const {
    return select(inside(a, b, t) >= V(0), V(1), V(0));
  }
};

// x where t = 1, max(0, margin - x) where t = -1; their sum elsewhere, as torch has it.
struct HingeEmbedding {
  double margin;

  template <class V>
  TILEGRAD_HOST_DEVICE V value(V x, V t, V) const {
    return select(t == V(1), V(0), max(V(margin) - x, V(0))) + select(t == V(-1), V(0), x);
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V by_a(V x, V t, V) const {
    const V apart = select(V(margin) - x >= V(0), V(-1), V(0));
    return select(t == V(1), V(0), apart) + select(t == V(-1), V(0), V(1));
  }
};

// log(1 + exp(-t x)), which does not overflow; by x it is -t sigmoid(-t x).
struct SoftMargin {
  template <class V>
  TILEGRAD_HOST_DEVICE V value(V x, V t, V) const {
    return log_one_plus_exp(-t * x);
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V by_a(V x, V t, V) const {
    return -t * sigmoid(-t * x);
  }
};

// Calls f with the struct of a loss.
template <class F>
inline decltype(auto) visit(const LossFunction& loss, F&& f) {
  switch (loss.kind) {
    case LossKind::l1:
      return f(OfDifference<Absolute>{});
    case LossKind::smooth_l1:
      return f(OfDifference<SmoothAbsolute>{{loss.number}});
    case LossKind::huber:
      return f(OfDifference<Huber>{{loss.number}});
    case LossKind::binary_cross_entropy:
      return f(BinaryCrossEntropy{});
    case LossKind::binary_cross_entropy_with_logits:
      return f(BinaryCrossEntropyWithLogits{});
    case LossKind::poisson_nll:
      return f(PoissonNll{loss.logarithm, loss.full, loss.number});
    case LossKind::gaussian_nll:
      return f(GaussianNll{loss.full, loss.number});
    case LossKind::kl_div:
      return f(KlDivergence{loss.logarithm});
    case LossKind::margin_ranking:
      return f(MarginRanking{loss.number});
    case LossKind::hinge_embedding:
      return f(HingeEmbedding{loss.number});
    case LossKind::soft_margin:
      return f(SoftMargin{});
    case LossKind::mse:
      break;
  }
  return f(OfDifference<Squared>{});
}

}  // namespace tilegrad::TILEGRAD_BACKEND
