// SPDX-License-Identifier: MIT
// Activations: f and its gradient, once for all backends.
//
// V is a value type: a SIMD vector on the CPU, a device float on a GPU. The formulas use its
// arithmetic, comparisons and the overloads  abs exp expm1 log1p tanh erfc min select  that an ISA
// or backend supplies; accuracy is theirs. It may also supply  sigmoid_pair sigmoid gelu gelu_slope
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

// f(x) = log(1 + exp u) / alpha, u = alpha x, and x itself where u > threshold; f' = sigmoid(u).
// As max(u, 0) + log(1 + exp(-|u|)), which does not overflow. Dugas et al. 2001.
struct Softplus {
  double alpha;
  double threshold;

  template <class V>
  TILEGRAD_HOST_DEVICE V value(V x) const {
    const V u = x * V(alpha);
    const V y = (select(u > V(0), u, V(0)) + log1p(exp(-abs(u)))) / V(alpha);
    return select(u > V(threshold), x, y);
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V from_input(V dy, V x) const {
    const V u = x * V(alpha);
    return select(u > V(threshold), dy, dy * sigmoid(u));
  }
};

// f(x) = x tanh(log(1 + exp x)) = x w / (w + 2), w = exp x (exp x + 2);
// f' = w / (w + 2) + 4 x exp x (1 + exp x) / (w + 2)^2. With e = exp(-|x|) <= 1 nothing overflows:
// for x > 0 all is divided by exp(2x) or exp(4x). Misra 2019, arXiv:1908.08681.
struct Mish {
  template <class V>
  TILEGRAD_HOST_DEVICE V value(V x) const {
    return x * ratio(x).t;
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V from_input(V dy, V x) const {
    const Ratio<V> r = ratio(x);
    return dy * multiply_add(x, r.slope, r.t);
  }

 private:
  template <class V>
  struct Ratio {
    V t, slope;  // tanh(log(1 + exp x)) and its derivative
  };
  template <class V>
  TILEGRAD_HOST_DEVICE static Ratio<V> ratio(V x) {
    const V e = exp(-abs(x));
    const auto positive = x >= V(0);
    const V above = V(1) + V(2) * e;
    const V below = e * (e + V(2));
    const V whole = select(positive, multiply_add(V(2) * e, e, above), below + V(2));
    const V t = select(positive, above, below) / whole;
    const V part = V(4) * e * (V(1) + e);
    return {t, select(positive, e * part, part) / (whole * whole)};
  }
};

// f(x) = x between low and high, else the nearer of them; f' is 1 inside, 0 at the ends and beyond.
// relu6 (0, 6): Krizhevsky 2010.
struct Hardtanh {
  double low;
  double high;

  template <class V>
  TILEGRAD_HOST_DEVICE V value(V x) const {
    return select(x < V(low), V(low), select(x > V(high), V(high), x));
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V from_input(V dy, V x) const {
    return select(x <= V(low), V(0), select(x >= V(high), V(0), dy));
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V from_output(V dy, V y) const {
    return from_input(dy, y);
  }
};

// f(x) = min(max(x + 3, 0), 6) / 6; f' = 1/6 between -3 and 3, else 0, also at a NaN.
struct Hardsigmoid {
  template <class V>
  TILEGRAD_HOST_DEVICE V value(V x) const {
    return Hardtanh{0, 6}.value(x + V(3)) / V(6);
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V from_input(V dy, V x) const {
    return select(abs(x) < V(3), dy / V(6), V(0));
  }
};

// f(x) = x min(max(x + 3, 0), 6) / 6; f' = 0 up to -3, x/3 + 1/2 below 3, then 1.
// Howard et al. 2019, arXiv:1905.02244.
struct Hardswish {
  template <class V>
  TILEGRAD_HOST_DEVICE V value(V x) const {
    return x * (Hardtanh{0, 6}.value(x + V(3)) / V(6));
  }
  template <class V>
  TILEGRAD_HOST_DEVICE V from_input(V dy, V x) const {
    const V inside = dy * (x / V(3) + V(0.5));
    return select(x <= V(-3), V(0), select(x >= V(3), dy, inside));
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
    case ActivationKind::softplus:
      return f(Softplus{activation.alpha, activation.beta});
    case ActivationKind::mish:
      return f(Mish{});
    case ActivationKind::hardtanh:
      return f(Hardtanh{activation.alpha, activation.beta});
    case ActivationKind::relu6:
      return f(Hardtanh{0, 6});
    case ActivationKind::hardsigmoid:
      return f(Hardsigmoid{});
    case ActivationKind::hardswish:
      return f(Hardswish{});
    case ActivationKind::identity:
      break;
  }
  return f(Identity{});
}

}  // namespace tilegrad::TILEGRAD_BACKEND
