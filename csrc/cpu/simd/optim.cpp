// SPDX-License-Identifier: MIT
// Optimiser steps and gradient norms, one pass over memory each.
//
// Math:        in ops.hpp; each line below is one operation of torch's single-tensor path, fused
//              multiply-adds included: SGD gives torch's bits. So does Adam but for the root,
//              which is correctly rounded here and in torch now and then 1 ulp off.
// Parallelism: one vector of elements at a time; Adam is bound by its root and a division.
// Memory:      elements read + written: Adam 4 + 3, SGD 2 + 1 or with momentum 3 + 2, norms 1 + 0;
//              a parameter of 16 bits beside its master 1 + 1 half elements more.
// Source:      torch.optim.SGD, Adam, AdamW (foreach=False); Kingma and Ba, arXiv:1412.6980;
//              Loshchilov and Hutter, arXiv:1711.05101; Reddi et al., arXiv:1904.09237.
#include "optim.hpp"

#include "../isa.hpp"
#include "optim_rules.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

// The values of a parameter that is trained as it is.
template <class T>
struct Plain {
  T* w;
  TILEGRAD_INLINE Vec<T> load(Slot<T> slot) const { return slot.load(w); }
  TILEGRAD_INLINE void store(Slot<T> slot, Vec<T> v) const { slot.store(w, v); }
};

// Those of a parameter of bfloat16: its master, but what was written to the parameter since the
// last update counts for more.
class Master {
 public:
  TILEGRAD_INLINE Master(float* w, uint16_t* rounded) : w_(w), rounded_(rounded) {}

  TILEGRAD_INLINE Vec<float> load(Slot<float> slot) const {
    const Vec<float> master = slot.load(w_);
    Halves halves = {};
    if (slot.count == Vec<float>::kSize) {
      __builtin_memcpy(&halves, rounded_ + slot.begin, sizeof(halves));
    } else {
      __builtin_memcpy(&halves, rounded_ + slot.begin, bytes(slot));
    }
    const Words now = __builtin_convertvector(halves, Words) << 16;
    return Vec<float>::from_bits(
        (native::I32)(now == round(master) ? (Words)master.to_bits() : now));
  }

  TILEGRAD_INLINE void store(Slot<float> slot, Vec<float> v) const {
    slot.store(w_, v);
    const Halves halves = __builtin_convertvector(round(v) >> 16, Halves);
    if (slot.count == Vec<float>::kSize) {
      __builtin_memcpy(rounded_ + slot.begin, &halves, sizeof(halves));
    } else {
      __builtin_memcpy(rounded_ + slot.begin, &halves, bytes(slot));
    }
  }

 private:
  using Words [[gnu::vector_size(native::kVectorBytes)]] = uint32_t;
  using Halves [[gnu::vector_size(native::kVectorBytes / 2)]] = uint16_t;

  static TILEGRAD_INLINE size_t bytes(Slot<float> slot) {
    return static_cast<size_t>(slot.count) * sizeof(uint16_t);
  }

  // To the nearest bfloat16, ties to even, in the upper half of each lane. NaN stays NaN.
  static TILEGRAD_INLINE Words round(Vec<float> v) {
    const Words bits = (Words)v.to_bits();
    const Words nearest = bits + 0x7fff + (bits >> 16 & 1);
    return ((bits & 0x7fffffff) > 0x7f800000 ? bits | 0x400000 : nearest) & 0xffff0000;
  }

  float* w_;
  uint16_t* rounded_;
};

template <class T, class Values, class Rule>
TILEGRAD_INLINE void pass(Values w, const T* grad, T* first, T* second, T* third, int64_t n,
                          Rule rule) {
  for_slots<T>(n, [&](Slot<T> slot) {
    w.store(slot, rule(slot, w.load(slot), slot.load(grad), first, second, third));
  });
}

template <class T, class Rule>
TILEGRAD_INLINE void any_pass(T* w, uint16_t* rounded, const T* grad, T* first, T* second, T* third,
                              int64_t n, Rule rule) {
  if constexpr (sizeof(T) == sizeof(float)) {
    if (rounded != nullptr) {
      return pass(Master(w, rounded), grad, first, second, third, n, rule);
    }
  }
  pass(Plain<T>{w}, grad, first, second, third, n, rule);
}

template <class T>
void sgd_kernel(T* w, uint16_t* rounded, const T* grad, T* momentum, int64_t n,
                const SgdConstants<T>& constants) {
  // The rule is a copy of the constants: stores to T* cannot change it.
  any_pass<T>(w, rounded, grad, momentum, nullptr, nullptr, n, SgdRule<T>{constants});
}

template <class T>
void adam_kernel(T* w, uint16_t* rounded, const T* grad, T* first, T* second, T* third, int64_t n,
                 const AdamConstants<T>& constants) {
  any_pass<T>(w, rounded, grad, first, second, third, n, AdamRule<T>{constants});
}

template <class T>
void scale_kernel(T* x, int64_t n, T factor) {
  for_slots<T>(n, [&](Slot<T> slot) { slot.store(x, slot.load(x) * Vec<T>(factor)); });
}

// ---- norms: kChains sums of Vec<double>, element i in chain (i / kSize) % kChains ----

constexpr int kChains = 4;  // enough to cover the latency of an addition
constexpr int kDoubles = Vec<double>::kSize;

using HalfF32 [[gnu::vector_size(native::kVectorBytes / 2)]] = float;

TILEGRAD_INLINE Vec<double> load_double(const double* p) { return Vec<double>::load(p); }
TILEGRAD_INLINE Vec<double> load_double(const float* p) {
  HalfF32 v;
  __builtin_memcpy(&v, p, sizeof(v));
  return Vec<double>::from_native(__builtin_convertvector(v, native::F64));
}

struct Magnitude {
  TILEGRAD_INLINE Vec<double> operator()(Vec<double> x) const { return abs(x); }
};
struct Square {
  TILEGRAD_INLINE Vec<double> operator()(Vec<double> x) const { return x * x; }
};

template <class Term, class T>
double sum_kernel(const T* x, int64_t n) {
  const Term term;
  Vec<double> chain[kChains] = {0.0, 0.0, 0.0, 0.0};
  constexpr int kStep = kChains * kDoubles;
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
#pragma GCC unroll 4
    for (int j = 0; j < kChains; ++j) chain[j] += term(load_double(x + i + j * kDoubles));
  }
  if (i < n) {
    T rest[kStep] = {};  // a zero adds nothing to either sum
    __builtin_memcpy(rest, x + i, static_cast<size_t>(n - i) * sizeof(T));
#pragma GCC unroll 4
    for (int j = 0; j < kChains; ++j) chain[j] += term(load_double(rest + j * kDoubles));
  }
  return reduce_add((chain[0] + chain[1]) + (chain[2] + chain[3]));
}

template <class T>
double maximum_kernel(const T* x, int64_t n) {
  Vec<T> result = T(0);
  for_slots<T>(n, [&](Slot<T> slot) { result = max(result, abs(slot.load(x))); });
  return static_cast<double>(reduce_max(result));
}

template <class T>
constexpr OptimKernels<T> kKernels = {sgd_kernel<T>,         adam_kernel<T>,
                                      scale_kernel<T>,       sum_kernel<Magnitude, T>,
                                      sum_kernel<Square, T>, maximum_kernel<T>};

}  // namespace

template <>
const OptimKernels<float>& table() {
  return kKernels<float>;
}
template <>
const OptimKernels<double>& table() {
  return kKernels<double>;
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
