// SPDX-License-Identifier: MIT
// Optimiser steps and gradient norms, one pass over memory each.
//
// Math:        of the steps in optim_rules.hpp, shared by all backends; norms below.
// Parallelism: one vector of elements at a time; Adam, RMSprop and Adagrad are bound by their root
//              and division.
// Memory:      elements read + written: SGD 2 + 1 or with momentum 3 + 2, Adam 4 + 3, RMSprop and
//              Adagrad 3 + 2 (each of momentum and centering 1 + 1 more), norms 1 + 0; a parameter
//              of 16 bits beside its master half an element more, read and written.
// Source:      torch.optim; see optim_rules.hpp.
#include "optim.hpp"

#include "../isa.hpp"
#include "halves.hpp"
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

// The constants are copies: stores to T* cannot change them.
template <class T, class Values, class Constants>
TILEGRAD_INLINE void pass(Values w, const T* grad, T* first, T* second, T* third, int64_t n,
                          const Constants& constants) {
  specialize(constants, [=](Constants c) __attribute__((always_inline)) {
    for_slots<T>(n, [=](Slot<T> slot) __attribute__((always_inline)) {
      w.store(slot, update(c, slot, w.load(slot), slot.load(grad), first, second, third));
    });
  });
}

template <class T>
void sgd_kernel(T* w, const T* grad, T* first, T* second, T* third, int64_t n,
                const SgdConstants<T>& c) {
  pass<T>(Plain<T>{w}, grad, first, second, third, n, c);
}

template <class T>
void adam_kernel(T* w, const T* grad, T* first, T* second, T* third, int64_t n,
                 const AdamConstants<T>& c) {
  pass<T>(Plain<T>{w}, grad, first, second, third, n, c);
}

template <class T>
void rmsprop_kernel(T* w, const T* grad, T* first, T* second, T* third, int64_t n,
                    const RmspropConstants<T>& c) {
  pass<T>(Plain<T>{w}, grad, first, second, third, n, c);
}

template <class T>
void adagrad_kernel(T* w, const T* grad, T* first, T* second, T* third, int64_t n,
                    const AdagradConstants<T>& c) {
  pass<T>(Plain<T>{w}, grad, first, second, third, n, c);
}

void sgd_master_kernel(float* w, bfloat16* parameter, const float* grad, float* first,
                       float* second, float* third, int64_t n, const SgdConstants<float>& c) {
  pass<float>(Master{w, parameter}, grad, first, second, third, n, c);
}

void adam_master_kernel(float* w, bfloat16* parameter, const float* grad, float* first,
                        float* second, float* third, int64_t n, const AdamConstants<float>& c) {
  pass<float>(Master{w, parameter}, grad, first, second, third, n, c);
}

void rmsprop_master_kernel(float* w, bfloat16* parameter, const float* grad, float* first,
                           float* second, float* third, int64_t n,
                           const RmspropConstants<float>& c) {
  pass<float>(Master{w, parameter}, grad, first, second, third, n, c);
}

void adagrad_master_kernel(float* w, bfloat16* parameter, const float* grad, float* first,
                           float* second, float* third, int64_t n,
                           const AdagradConstants<float>& c) {
  pass<float>(Master{w, parameter}, grad, first, second, third, n, c);
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
constexpr OptimKernels<T> kKernels = {
    sgd_kernel<T>,   adam_kernel<T>,           rmsprop_kernel<T>,     adagrad_kernel<T>,
    scale_kernel<T>, sum_kernel<Magnitude, T>, sum_kernel<Square, T>, maximum_kernel<T>};
constexpr MasterKernels kMasterKernels = {sgd_master_kernel, adam_master_kernel,
                                          rmsprop_master_kernel, adagrad_master_kernel};

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
