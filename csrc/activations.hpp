// SPDX-License-Identifier: MIT
// Activations: f and its gradient, once for all backends.
//
// V is a value type: a SIMD vector on the CPU, a device float on a GPU. The formulas use its
// arithmetic, comparisons and the overloads  abs exp expm1 tanh erfc min select  that an ISA or
// backend supplies; accuracy is theirs. It may also supply  sigmoid_pair sigmoid gelu gelu_slope
// for its V (found by argument-dependent lookup). A struct has
//   value(x)                f(x)
//   from_input(dy, x)       dy f'(x)
//   from_output(dy, y)      dy f'(x) by means of y = f(x); absent where y does not determine f'
// NaN propagates; ties at 0 follow PyTorch (the derivative of relu at 0 is 0).
#pragma once

#include "host_device.hpp"
#include "ops.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

// s = 1/(1 + exp(-x)), c = 1 - s and s c, all to full relative accuracy: with e = exp(-|x|) <= 1
// the larger of the two is 1/(1+e), the smaller e/(1+e). Neither overflows, neither cancels.
template <class V>
struct SigmoidPair {
  V s, c, product;
};
template <class V>
TILEGRAD_HOST_DEVICE inline SigmoidPair<V> sigmoid_pair(V x) {
  const V e = exp(-abs(x));
  const V large = V(1) / (V(1) + e);
  const V small = e * large;
  const auto positive = x >= V(0);
  return {select(positive, large, small), select(positive, small, large), small * large};
}

template <class V>
TILEGRAD_HOST_DEVICE inline V sigmoid(V x) {
  return sigmoid_pair(x).s;
}

// a b + c; an ISA may round it once.
template <class V>
TILEGRAD_HOST_DEVICE inline V multiply_add(V a, V b, V c) {
  return a * b + c;
}

// min(x, limit); for a NaN either.
template <class V>
TILEGRAD_HOST_DEVICE inline V at_most(V x, double limit) {
  return min(x, V(limit));
}

// The normal distribution Phi(x) = erfc(-x / sqrt 2) / 2. erfc and not 1 + erf: no cancellation for
// negative x.
template <class V>
TILEGRAD_HOST_DEVICE inline V normal_distribution(V x) {
  return V(0.5) * erfc(x * V(-0.7071067811865476));
}
// x Phi(x) and its derivative Phi + x phi.
template <class V>
TILEGRAD_HOST_DEVICE inline V gelu(V x) {
  return x * normal_distribution(x);
}
template <class V>
TILEGRAD_HOST_DEVICE inline V gelu_slope(V x) {
  const V density = V(0.3989422804014327) * exp(V(-0.5) * x * x);
  return normal_distribution(x) + x * density;
}

// f(x) = x.
struct Identity {
  template <class V>
  TILEGRAD_HOST_DEVICE V value(V x) const {
    return x;
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V from_input(V dy, V) const {
    return dy;
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V from_output(V dy, V) const {
    return dy;
  }
};

// f(x) = 1/(1 + exp(-x)), f' = y (1 - y).
struct Sigmoid {
  template <class V>
  TILEGRAD_HOST_DEVICE V value(V x) const {
    return sigmoid(x);
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V from_input(V dy, V x) const {
    return dy * sigmoid_pair(x).product;
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V from_output(V dy, V y) const {
    return dy * (y * (V(1) - y));
  }
};

// f(x) = tanh x, f' = 1 - y^2.
struct Tanh {
  template <class V>
  TILEGRAD_HOST_DEVICE V value(V x) const {
    return tanh(x);
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V from_input(V dy, V x) const {
    return from_output(dy, tanh(x));
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V from_output(V dy, V y) const {
    return dy * ((V(1) - y) * (V(1) + y));
  }
};

// f(x) = max(x, 0). Written as "not x <= 0" so that NaN passes.
struct Relu {
  template <class V>
  TILEGRAD_HOST_DEVICE V value(V x) const {
    return select(x <= V(0), V(0), x);
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V from_input(V dy, V x) const {
    return select(x <= V(0), V(0), dy);
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V from_output(V dy, V y) const {
    return from_input(dy, y);
  }
};

// f(x) = x if x > 0, else alpha x. Maas, Hannun, Ng 2013. From the output only for alpha >= 0.
struct LeakyRelu {
  double alpha;

  template <class V>
  TILEGRAD_HOST_DEVICE V value(V x) const {
    return select(x > V(0), x, x * V(alpha));
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V from_input(V dy, V x) const {
    return select(x > V(0), dy, dy * V(alpha));
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V from_output(V dy, V y) const {
    return from_input(dy, y);
  }
};

// f(x) = scale x if x > 0, else scale alpha (exp(x) - 1); below zero f' = y + scale alpha.
// ELU (scale 1): Clevert, Unterthiner, Hochreiter 2016, arXiv:1511.07289.
// SELU (the constants below): Klambauer et al. 2017, arXiv:1706.02515.
struct Elu {
  double alpha;
  double scale = 1;

  template <class V>
  TILEGRAD_HOST_DEVICE V value(V x) const {
    return select(x > V(0), V(scale) * x, V(scale * alpha) * expm1(x));
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V from_input(V dy, V x) const {
    return select(x > V(0), V(scale) * dy, dy * (V(scale * alpha) * exp(x)));
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V from_output(V dy, V y) const {
    return select(y > V(0), V(scale) * dy, dy * (y + V(scale * alpha)));
  }
};
inline constexpr double kSeluAlpha = 1.6732632423543772848170429916717;
inline constexpr double kSeluScale = 1.0507009873554804934193349852946;

// f(x) = x Phi(x), f' = Phi + x phi. Hendrycks, Gimpel 2016, arXiv:1606.08415.
struct Gelu {
  template <class V>
  TILEGRAD_HOST_DEVICE V value(V x) const {
    return gelu(x);
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V from_input(V dy, V x) const {
    return dy * gelu_slope(x);
  }
};

// f(x) = x (1 + tanh u) / 2 = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3): one exp.
struct GeluTanh {
  template <class V>
  TILEGRAD_HOST_DEVICE V value(V x) const {
    return x * sigmoid(twice_u(x, x * x));
  }
  // f' = s + x s (1-s) (2u)'. Beyond |x| = 1000 s (1-s) is 0; the bound keeps x^2 finite there.
  template <class V>
  TILEGRAD_HOST_DEVICE V from_input(V dy, V x) const {
    const V x2 = at_most(x * x, 1e6);
    const SigmoidPair<V> p = sigmoid_pair(twice_u(x, x2));
    return dy *
           multiply_add(x * p.product, multiply_add(V(3 * kSlope * kCubic), x2, V(kSlope)), p.s);
  }

 private:
  static constexpr double kSlope = 1.5957691216057308;  // 2 sqrt(2/pi)
  static constexpr double kCubic = 0.044715;

  template <class V>
  TILEGRAD_HOST_DEVICE static V twice_u(V x, V x2) {
    return x * multiply_add(V(kSlope * kCubic), x2, V(kSlope));
  }
};

// f(x) = x sigmoid(x); f' = s (1 + x (1 - s)). Elfwing, Uchibe, Doya 2017, arXiv:1702.03118.
struct Silu {
  template <class V>
  TILEGRAD_HOST_DEVICE V value(V x) const {
    return x * sigmoid(x);
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V from_input(V dy, V x) const {
    const SigmoidPair<V> p = sigmoid_pair(x);
    return dy * multiply_add(x, p.product, p.s);
  }
};

// Calls f with the struct of an activation.
template <class F>
inline decltype(auto) visit(Activation activation, F&& f) {
  switch (activation.kind) {
    case ActivationKind::sigmoid:
      return f(Sigmoid{});
    case ActivationKind::tanh:
      return f(Tanh{});
    case ActivationKind::relu:
      return f(Relu{});
    case ActivationKind::leaky_relu:
      return f(LeakyRelu{activation.alpha});
    case ActivationKind::elu:
      return f(Elu{activation.alpha});
    case ActivationKind::selu:
      return f(Elu{kSeluAlpha, kSeluScale});
    case ActivationKind::gelu:
      return f(Gelu{});
    case ActivationKind::gelu_tanh:
      return f(GeluTanh{});
    case ActivationKind::silu:
      return f(Silu{});
    case ActivationKind::identity:
      break;
  }
  return f(Identity{});
}

}  // namespace tilegrad::TILEGRAD_BACKEND
