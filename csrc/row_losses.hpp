// SPDX-License-Identifier: MIT
// Losses with one value a row: their formulas and slopes, once for all backends.
//
// V is a value type as in activations.hpp; A is a plain float or double, a number of a whole row.
// Kinks follow PyTorch: max(0, z) has slope 0 at z = 0 where it is a class' share of a loss, and
// slope 1 where it is the loss of a row (a clamp).
#pragma once

#include <cmath>

#include "activations.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

// max(0, z)^p for p = 1 or 2 and its slope. A NaN counts for nothing.
// Crammer, Singer 2001, On the Algorithmic Implementation of Multiclass Kernel-based Vector
// Machines.
struct Hinge {
  bool squared = false;

  template <class V>
  TILEGRAD_HOST_DEVICE V value(V z) const {
    return select(z > V(0), squared ? z * z : z, V(0));
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V slope(V z) const {
    return select(z > V(0), squared ? z + z : V(1), V(0));
  }
};

// A label's cross-entropy: -(t log s + (1 - t) log(1 - s)), s = sigmoid(x). With e = exp(-|x|) <= 1
// and l = log(1 + e): -log s = l - min(x, 0), -log(1 - s) = l + max(x, 0).
// d/dx = (1 - t) s - t (1 - s), d/dt = -x.
struct LabelCrossEntropy {
  template <class V>
  struct Terms {
    V loss, dinput;
  };

  template <class V>
  TILEGRAD_HOST_DEVICE static Terms<V> terms(V x, V t) {
    const V e = exp(-abs(x)), l = log1p(e);
    const V large = V(1) / (V(1) + e), small = e * large;
    const auto positive = x >= V(0);
    const V rest = V(1) - t;
    const V yes = l - select(positive, V(0), x), no = l + select(positive, x, V(0));
    const V s = select(positive, large, small), c = select(positive, small, large);
    return {t * yes + rest * no, rest * s - t * c};
  }
};

// |d|_p = (sum |d_i|^p)^(1/p) for any p > 0.
enum class Norm { one, two, infinity, any };

inline Norm norm_of(double p) {
  return p == 1 ? Norm::one : p == 2 ? Norm::two : std::isinf(p) ? Norm::infinity : Norm::any;
}

template <class V>
TILEGRAD_HOST_DEVICE inline V sign_of(V d) {
  return select(d > V(0), V(1), select(d < V(0), V(-1), V(0)));
}

// What an element adds to the norm (for infinity: of which the largest counts).
template <Norm kNorm, class V>
TILEGRAD_HOST_DEVICE inline V norm_term(V d, double p) {
  if constexpr (kNorm == Norm::any) {
    return ::pow(::fabs(d), p);  // of a double
  } else {
    return kNorm == Norm::two ? d * d : abs(d);
  }
}
template <Norm kNorm, class A>
TILEGRAD_HOST_DEVICE inline A norm_end(A sum, double p) {
  if constexpr (kNorm == Norm::any) return static_cast<A>(::pow(static_cast<double>(sum), 1 / p));
  return kNorm == Norm::two ? static_cast<A>(sqrt(sum)) : sum;
}

// g d|d|/dd_i: factor is norm_factor(), made once a row. 0 at a norm of 0; equal maxima share g.
template <Norm kNorm, class A>
TILEGRAD_HOST_DEVICE inline A norm_factor(A g, A norm, A maxima) {
  if (norm == 0) return 0;
  return kNorm == Norm::two ? g / norm : kNorm == Norm::infinity ? g / maxima : g;
}
template <Norm kNorm, class V>
TILEGRAD_HOST_DEVICE inline V norm_slope(V d, V factor, V norm, double p) {
  if constexpr (kNorm == Norm::any) {  // of a double
    if (norm == 0) return 0;
    if (d == 0 && p < 1) return 0 * norm;
    const V sign = static_cast<V>((d > 0) - (d < 0));
    return factor * (sign * ::pow(::fabs(d) / norm, p - 1));
  } else if constexpr (kNorm == Norm::two) {
    return d * factor;
  } else if constexpr (kNorm == Norm::one) {
    return sign_of(d) * factor;
  } else {
    return select(abs(d) == norm, sign_of(d) * factor, V(0));
  }
}

// max(0, margin + near - far), far the distance between anchor and negative or, with swap, that
// between positive and negative where it is less. Upstream of the three distances: `near`, `far`
// and `between`, those of a tie half each.
// Balntas et al. 2016, Learning local feature descriptors with triplets and shallow convolutional
// neural networks.
template <class A>
struct TripletEnd {
  A loss, near, far, between;
};
template <class A>
TILEGRAD_HOST_DEVICE inline TripletEnd<A> triplet_end(A margin, A near, A far, A between, bool swap,
                                                      A g) {
  A least = far, share = 1;
  if (swap) {
    if (between < far || between != between) least = between;
    share = far == between ? A(0.5) : between < far ? A(0) : A(1);
  }
  const A raw = margin + near - least;
  const A up = raw >= 0 ? g : A(0);
  return {raw < 0 ? A(0) : raw, up, -up * share, -up * (1 - share)};
}

// cos = dot / sqrt((square1 + eps)(square2 + eps)); label 1: 1 - cos, label -1: max(0, cos -
// margin), else 0. dx1 = cross x2 + own1 x1, dx2 = cross x1 + own2 x2. eps is a float in torch.
template <class A>
struct CosineEnd {
  A loss, cross, own1, own2;
};
template <class A>
TILEGRAD_HOST_DEVICE inline CosineEnd<A> cosine_end(A dot, A square1, A square2, int label,
                                                    A margin, A g) {
  const A eps = static_cast<A>(1e-12f);
  square1 += eps;
  square2 += eps;
  const A length = sqrt(square1) * sqrt(square2);
  const A cos = dot / length, above = cos - margin;
  const A slope = label == 1 ? -g : label == -1 && above >= 0 ? g : A(0);
  const A loss = label == 1 ? 1 - cos : label == -1 && !(above < 0) ? above : A(0);
  return {loss, slope / length, -slope * cos / square1, -slope * cos / square2};
}

}  // namespace tilegrad::TILEGRAD_BACKEND
