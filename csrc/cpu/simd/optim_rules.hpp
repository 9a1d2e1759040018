// SPDX-License-Identifier: MIT
// The optimisers' formulas over vectors of elements, wherever their gradients come from.
#pragma once

#include "../../optim_rules.hpp"
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

#if defined(TILEGRAD_ISA_AVX512) || defined(TILEGRAD_ISA_AVX2)
// By multiplication, to the bits of a division: with y = 1 / c rounded, the first quotient is off
// by less than 2 ulp, the second by less than 1, and from such a one the next is correctly rounded
// (Markstein 1990, theorem of the final step). Where fma rounds twice a division has to do it.
template <class T>
TILEGRAD_INLINE Vec<T> next_quotient(Vec<T> x, Vec<T> quotient, const Divisor<T>& by) {
  return fma(fma(-quotient, Vec<T>(by.value), x), Vec<T>(by.reciprocal), quotient);
}

template <class T>
TILEGRAD_INLINE Vec<T> divided(Vec<T> x, const Divisor<T>& by) {
  using V = Vec<T>;
  if (!by.in_range) return x / V(by.value);
  const V first = x * V(by.reciprocal);
  const V second = next_quotient(x, first, by);
  const V third = next_quotient(x, second, by);
  return select(first < V(T(__builtin_inf())), third, first);  // NaN and infinity as they are
}
#endif

// f(constants) where those flags that decide about whole operands are known to the compiler: a loop
// for each choice, and one for the rare ones.
template <class T, class F>
TILEGRAD_INLINE void specialize(SgdConstants<T> c, F f) {
  if (c.gradient.has_l1_decay) return f(c);
  c.gradient.has_l1_decay = false;
  if (c.has_momentum) {
    c.has_momentum = true;
    return f(c);
  }
  c.has_momentum = false;
  f(c);
}
template <class T, class F>
TILEGRAD_INLINE void specialize(AdamConstants<T> c, F f) {
  if (c.gradient.has_l1_decay || c.amsgrad) return f(c);
  c.gradient.has_l1_decay = c.amsgrad = false;
  f(c);
}
template <class T, class F>
TILEGRAD_INLINE void specialize(RmspropConstants<T> c, F f) {
  if (c.gradient.has_l1_decay || c.has_momentum || c.centered) return f(c);
  c.gradient.has_l1_decay = c.has_momentum = c.centered = false;
  f(c);
}
template <class T, class F>
TILEGRAD_INLINE void specialize(AdagradConstants<T> c, F f) {
  if (c.gradient.has_l1_decay) return f(c);
  c.gradient.has_l1_decay = false;
  f(c);
}

// Returns the new values of a slot and updates the optimiser's buffers there.
template <class T, class Constants>
TILEGRAD_INLINE Vec<T> update(const Constants& c, Slot<T> slot, Vec<T> w, Vec<T> grad, T* first,
                              T* second, T* third) {
  const Kept kept = kept_by<Vec<T>>(c);
  Buffers<Vec<T>> at = {};
  if (kept.first) at.first = slot.load(first);
  if (kept.second) at.second = slot.load(second);
  if (kept.third) at.third = slot.load(third);
  w = updated(c, w, grad, at);
  if (kept.first) slot.store(first, at.first);
  if (kept.second) slot.store(second, at.second);
  if (kept.third) slot.store(third, at.third);
  return w;
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
