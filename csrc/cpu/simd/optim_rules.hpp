// SPDX-License-Identifier: MIT
// The optimisers' formulas for one vector of elements, wherever their gradients come from.
#pragma once

#include "optim.hpp"
#include "vec.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {

// Elements [begin, begin + count) of an array as a vector; count is below kSize only at the end.
template <class T>
struct Slot {
  int64_t begin;
  int count;
  TILEGRAD_INLINE Vec<T> load(const T* p) const {
    return count == Vec<T>::kSize ? Vec<T>::load(p + begin)
                                  : Vec<T>::load_partial(p + begin, count);
  }
  TILEGRAD_INLINE void store(T* p, Vec<T> v) const {
    if (count == Vec<T>::kSize) {
      v.store(p + begin);
    } else {
      v.store_partial(p + begin, count);
    }
  }
};

template <class T, class F>
TILEGRAD_INLINE void for_slots(int64_t n, F f) {
  constexpr int kSize = Vec<T>::kSize;
  int64_t i = 0;
  for (; i + kSize <= n; i += kSize) f(Slot<T>{i, kSize});
  if (i < n) f(Slot<T>{i, static_cast<int>(n - i)});
}

// Each rule returns the new values of a slot and updates the optimiser's buffers there.
template <class T>
struct SgdRule {
  using V = Vec<T>;
  SgdConstants<T> c;

  TILEGRAD_INLINE V operator()(Slot<T> slot, V data, V grad, T* momentum, T*, T*) const {
    V g = grad * V(c.gradient_factor);
    if (c.has_weight_decay) g = fma(data, V(c.weight_decay), g);
    if (c.has_momentum) {
      V v = g;
      if (!c.first_step) {
        v = fma(g, V(c.one_minus_dampening), slot.load(momentum) * V(c.momentum));
      }
      slot.store(momentum, v);
      g = c.nesterov ? fma(v, V(c.momentum), g) : v;
    }
    return fma(g, V(c.minus_learning_rate), data);
  }
};

// x / c for x >= 0 by multiplication, to the same bits: with y = 1 / c rounded, the first quotient
// is off by less than 2 ulp, the second by less than 1, and from such a one the next is correctly
// rounded (Markstein 1990, theorem of the final step). Where fma rounds twice it is a division.
template <class T>
struct Divisor {
  using V = Vec<T>;
  T c;
#if defined(TILEGRAD_ISA_AVX512) || defined(TILEGRAD_ISA_AVX2)
  T y = T(1) / c;
  bool is_normal = c >= T(0x1p-20) && c <= T(1);  // else a remainder might underflow

  TILEGRAD_INLINE V divide(V x) const {
    if (!is_normal) return x / V(c);
    const V first = x * V(y);
    const V second = next(x, first);
    const V third = next(x, second);
    return select(first < V(T(__builtin_inf())), third, first);  // NaN and infinity as they are
  }
  TILEGRAD_INLINE V next(V x, V quotient) const {
    return fma(fma(-quotient, V(c), x), V(y), quotient);
  }
#else
  TILEGRAD_INLINE V divide(V x) const { return x / V(c); }
#endif
};

template <class T>
struct AdamRule {
  using V = Vec<T>;
  AdamConstants<T> c;
  Divisor<T> correction = {c.sqrt_correction2};
  // torch.lerp starts from the nearer end, so that both ends are exact.
  bool from_m = c.one_minus_beta1 < T(0.5);
  T lerp_weight = from_m ? c.one_minus_beta1 : c.one_minus_beta1 - T(1);

  TILEGRAD_INLINE V operator()(Slot<T> slot, V values, V grad, T* first, T* second,
                               T* third) const {
    const V data = values * V(c.data_factor);
    V g = grad * V(c.gradient_factor);
    if (c.has_weight_decay) g = fma(data, V(c.weight_decay), g);
    V m = slot.load(first);
    m = fma(V(lerp_weight), g - m, from_m ? m : g);
    slot.store(first, m);
    V v = fma(g * V(c.one_minus_beta2), g, slot.load(second) * V(c.beta2));
    slot.store(second, v);
    if (c.amsgrad) {
      v = max(slot.load(third), v);
      slot.store(third, v);
    }
    const V denominator = correction.divide(sqrt(v)) + V(c.eps);
    return data + V(c.minus_step_size) * m / denominator;
  }
};

}  // namespace tilegrad::cpu::TILEGRAD_ISA
