// SPDX-License-Identifier: MIT
// Optimisers: the update of an element, once for all backends.
//
// Math:   in ops.hpp. Each line is one operation of torch's single-tensor path, fused multiply-adds
//         included: SGD gives torch's bits. So do the others but for the root, which is correctly
//         rounded here and in torch now and then 1 ulp off.
// V is a value type: a SIMD vector on the CPU, a device number on a GPU. The formulas use its
// arithmetic, comparisons and the overloads  fma max select sqrt  that an ISA or backend supplies;
// it may also supply  divided  for its V (found by argument-dependent lookup).
// Source: torch.optim.SGD, Adam, AdamW, RMSprop, Adagrad (foreach=False); Kingma and Ba,
//         arXiv:1412.6980; Loshchilov and Hutter, arXiv:1711.05101; Reddi et al., arXiv:1904.09237;
//         Hinton, lecture 6e of Neural Networks for Machine Learning, 2012; Duchi, Hazan, Singer,
//         JMLR 12, 2011.
#pragma once

#include "host_device.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

// The constants of a step, made by constants_of (optim_constants.hpp).

template <class T>
struct GradientConstants {
  T factor;  // the clipping coefficient, negative to maximise
  T l1_decay, weight_decay;
  bool has_l1_decay, has_weight_decay;
};

template <class T>
struct SgdConstants {
  using Value = T;
  GradientConstants<T> gradient;
  T momentum, one_minus_dampening, minus_learning_rate;
  bool has_momentum, first_step, nesterov;
};

// x / value for x >= 0. Where `divided` multiplies by the reciprocal instead, it may do so only for
// a value in [2^-20, 1]: else a remainder might underflow.
template <class T>
struct Divisor {
  T value, reciprocal;
  bool in_range;
};

template <class T>
struct AdamConstants {
  using Value = T;
  GradientConstants<T> gradient;
  T data_factor;  // decoupled decay: 1 - lr weight_decay, else 1
  T lerp_weight;  // 1 - beta1, or minus beta1 where the mean starts from the gradient
  T beta2, one_minus_beta2, eps, minus_step_size;
  Divisor<T> correction;  // sqrt(1 - beta2^t)
  bool from_mean, amsgrad;
};

template <class T>
struct RmspropConstants {
  using Value = T;
  GradientConstants<T> gradient;
  T alpha, one_minus_alpha, lerp_weight, eps, momentum, minus_learning_rate;
  bool from_mean, has_momentum, centered;
};

template <class T>
struct AdagradConstants {
  using Value = T;
  GradientConstants<T> gradient;
  T eps, minus_learning_rate;
};

// An element of OptimTensor's buffers, and which of them a rule keeps.
template <class V>
struct Buffers {
  V first, second, third;
};
struct Kept {
  bool first, second, third;
};
template <class V, class T>
TILEGRAD_HOST_DEVICE TILEGRAD_INLINE Kept kept_by(const SgdConstants<T>& c) {
  return {c.has_momentum, false, false};
}
template <class V, class T>
TILEGRAD_HOST_DEVICE TILEGRAD_INLINE Kept kept_by(const AdamConstants<T>& c) {
  return {true, true, c.amsgrad};
}
template <class V, class T>
TILEGRAD_HOST_DEVICE TILEGRAD_INLINE Kept kept_by(const RmspropConstants<T>& c) {
  return {true, c.has_momentum, c.centered};
}
template <class V, class T>
TILEGRAD_HOST_DEVICE TILEGRAD_INLINE Kept kept_by(const AdagradConstants<T>&) {
  return {true, false, false};
}

template <class V, class T>
TILEGRAD_HOST_DEVICE TILEGRAD_INLINE V divided(V x, const Divisor<T>& by) {
  return x / V(by.value);
}

// torch.lerp starts from the nearer end, so that both ends are exact.
template <class V, class T>
TILEGRAD_HOST_DEVICE TILEGRAD_INLINE V lerp(V mean, V g, T weight, bool from_mean) {
  return fma(V(weight), g - mean, from_mean ? mean : g);
}

template <class V, class T>
TILEGRAD_HOST_DEVICE TILEGRAD_INLINE V gradient_of(const GradientConstants<T>& c, V w, V grad) {
  V g = grad * V(c.factor);
  if (c.has_l1_decay) {
    const V none(T(0));
    g = g + select(w > none, V(c.l1_decay), select(w < none, V(-c.l1_decay), none));
  }
  if (c.has_weight_decay) g = fma(w, V(c.weight_decay), g);
  return g;
}

// The new value of w; the buffers are updated in place.
template <class V, class T>
TILEGRAD_HOST_DEVICE TILEGRAD_INLINE V updated(const SgdConstants<T>& c, V w, V grad,
                                               Buffers<V>& at) {
  V g = gradient_of(c.gradient, w, grad);
  if (c.has_momentum) {
    V v = g;
    if (!c.first_step) v = fma(g, V(c.one_minus_dampening), at.first * V(c.momentum));
    at.first = v;
    g = c.nesterov ? fma(v, V(c.momentum), g) : v;
  }
  return fma(g, V(c.minus_learning_rate), w);
}

template <class V, class T>
TILEGRAD_HOST_DEVICE TILEGRAD_INLINE V updated(const AdamConstants<T>& c, V w, V grad,
                                               Buffers<V>& at) {
  const V data = w * V(c.data_factor);
  const V g = gradient_of(c.gradient, w, grad);  // a decay in it leaves data = w
  at.first = lerp(at.first, g, c.lerp_weight, c.from_mean);
  at.second = fma(g * V(c.one_minus_beta2), g, at.second * V(c.beta2));
  V v = at.second;
  if (c.amsgrad) v = at.third = max(at.third, v);
  const V denominator = divided(sqrt(v), c.correction) + V(c.eps);
  return data + V(c.minus_step_size) * at.first / denominator;
}

template <class V, class T>
TILEGRAD_HOST_DEVICE TILEGRAD_INLINE V updated(const RmspropConstants<T>& c, V w, V grad,
                                               Buffers<V>& at) {
  const V g = gradient_of(c.gradient, w, grad);
  at.first = fma(g * V(c.one_minus_alpha), g, at.first * V(c.alpha));
  V square = at.first;
  if (c.centered) {
    at.third = lerp(at.third, g, c.lerp_weight, c.from_mean);
    square = fma(-at.third, at.third, square);
  }
  const V denominator = sqrt(square) + V(c.eps);
  if (!c.has_momentum) return w + V(c.minus_learning_rate) * g / denominator;
  at.second = at.second * V(c.momentum) + g / denominator;
  return fma(at.second, V(c.minus_learning_rate), w);
}

template <class V, class T>
TILEGRAD_HOST_DEVICE TILEGRAD_INLINE V updated(const AdagradConstants<T>& c, V w, V grad,
                                               Buffers<V>& at) {
  const V g = gradient_of(c.gradient, w, grad);
  at.first = fma(g, g, at.first);
  return w + V(c.minus_learning_rate) * g / (sqrt(at.first) + V(c.eps));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
