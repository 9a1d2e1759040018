// SPDX-License-Identifier: MIT
// Optimiser steps and gradient norms, one pass over memory each.
//
// Math:        in ops.hpp; each line below is one operation of torch's single-tensor path, fused
//              multiply-adds included: SGD gives torch's bits. So does Adam but for the root,
//              which is correctly rounded here and in torch now and then 1 ulp off.
// Parallelism: one vector of elements at a time; Adam is bound by its root and two divisions.
// Memory:      elements read + written: Adam 4 + 3, SGD 2 + 1 or with momentum 3 + 2, norms 1 + 0;
//              a parameter of 16 bits beside its master half an element more, read and written.
// Source:      torch.optim.SGD, Adam, AdamW (foreach=False); Kingma and Ba, arXiv:1412.6980;
//              Loshchilov and Hutter, arXiv:1711.05101; Reddi et al., arXiv:1904.09237.
#include "optim.hpp"

#include "../isa.hpp"
#include "halves.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

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

// The values of a parameter that is trained as it is.
template <class T>
struct Plain {
  T* w;
  TILEGRAD_INLINE Vec<T> load(Slot<T> slot) const { return slot.load(w); }
  TILEGRAD_INLINE void store(Slot<T> slot, Vec<T> v) const { slot.store(w, v); }
};

// Those of a parameter of bfloat16: its master, but what was written to the parameter since the
// last update counts for more.
struct Master {
  float* w;
  bfloat16* parameter;

  TILEGRAD_INLINE Vec<float> load(Slot<float> slot) const {
    const bfloat16* from = parameter + slot.begin;
    const bool whole = slot.count == Vec<float>::kSize;
    const Words now = zero_extended(whole ? load_halves(from) : load_halves(from, slot.count));
    const Vec<float> master = slot.load(w);
    return as_float(now == rounded(master) ? (Words)master.to_bits() : now << 16);
  }

  TILEGRAD_INLINE void store(Slot<float> slot, Vec<float> v) const {
    slot.store(w, v);
    const Halves halves = narrowed(v);
    if (slot.count == Vec<float>::kSize) {
      store_halves(parameter + slot.begin, Vec<float>::kSize, halves);
    } else {
      store_halves(parameter + slot.begin, slot.count, halves);
    }
  }
};

template <class T, class Values>
TILEGRAD_INLINE void sgd_pass(Values w, const T* grad, T* momentum, int64_t n,
                              const SgdConstants<T>& constants) {
  using V = Vec<T>;
  const SgdConstants<T> c = constants;  // a copy: stores to T* cannot change it
  for_slots<T>(n, [&](Slot<T> slot) {
    const V data = w.load(slot);
    V g = slot.load(grad) * V(c.gradient_factor);
    if (c.has_weight_decay) g = fma(data, V(c.weight_decay), g);
    if (c.has_momentum) {
      V v = g;
      if (!c.first_step) {
        v = fma(g, V(c.one_minus_dampening), slot.load(momentum) * V(c.momentum));
      }
      slot.store(momentum, v);
      g = c.nesterov ? fma(v, V(c.momentum), g) : v;
    }
    w.store(slot, fma(g, V(c.minus_learning_rate), data));
  });
}

template <class T>
void sgd_kernel(T* w, const T* grad, T* momentum, int64_t n, const SgdConstants<T>& constants) {
  sgd_pass(Plain<T>{w}, grad, momentum, n, constants);
}

void sgd_master_kernel(float* w, bfloat16* parameter, const float* grad, float* momentum, int64_t n,
                       const SgdConstants<float>& constants) {
  sgd_pass(Master{w, parameter}, grad, momentum, n, constants);
}

template <class T, class Values>
TILEGRAD_INLINE void adam_pass(Values w, const T* grad, T* first, T* second, T* third, int64_t n,
                               const AdamConstants<T>& constants) {
  using V = Vec<T>;
  const AdamConstants<T> c = constants;
  // torch.lerp starts from the nearer end, so that both ends are exact.
  const bool from_m = c.one_minus_beta1 < T(0.5);
  const V lerp_weight = from_m ? c.one_minus_beta1 : c.one_minus_beta1 - T(1);
  for_slots<T>(n, [&](Slot<T> slot) __attribute__((always_inline)) {
    const V data = w.load(slot) * V(c.data_factor);
    V g = slot.load(grad) * V(c.gradient_factor);
    if (c.has_weight_decay) g = fma(data, V(c.weight_decay), g);
    V m = slot.load(first);
    m = fma(lerp_weight, g - m, from_m ? m : g);
    slot.store(first, m);
    V v = fma(g * V(c.one_minus_beta2), g, slot.load(second) * V(c.beta2));
    slot.store(second, v);
    if (c.amsgrad) {
      v = max(slot.load(third), v);
      slot.store(third, v);
    }
    const V denominator = sqrt(v) / V(c.sqrt_correction2) + V(c.eps);
    w.store(slot, data + V(c.minus_step_size) * m / denominator);
  });
}

template <class T>
void adam_kernel(T* w, const T* grad, T* first, T* second, T* third, int64_t n,
                 const AdamConstants<T>& constants) {
  adam_pass(Plain<T>{w}, grad, first, second, third, n, constants);
}

void adam_master_kernel(float* w, bfloat16* parameter, const float* grad, float* first,
                        float* second, float* third, int64_t n,
                        const AdamConstants<float>& constants) {
  adam_pass(Master{w, parameter}, grad, first, second, third, n, constants);
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
constexpr MasterKernels kMasterKernels = {sgd_master_kernel, adam_master_kernel};

}  // namespace

template <>
const OptimKernels<float>& table() {
  return kKernels<float>;
}
template <>
const OptimKernels<double>& table() {
  return kKernels<double>;
}
template <>
const MasterKernels& table() {
  return kMasterKernels;
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
