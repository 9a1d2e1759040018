// SPDX-License-Identifier: MIT
// Math: g[r,j] = sum_p dz[p,r] x[p,j], at once w[r,j] = rule(w[r,j], g[r,j]).
// Shapes: a tile of 14 x 2 vectors of AVX-512, 6 x 2 of AVX2, 4 x 2 else.
// Parallelism: every lane of every accumulator is an element of W; no sum crosses lanes.
// Memory: the tile of W comes to L1 while the sum runs; the gradient never leaves registers where
//   the rule is w -= lr g, and L1 where it is longer.
#include "linear_update.hpp"

#include "../isa.hpp"
#include "optim_rules.hpp"
#include "tile_rows.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

constexpr int kRows = max_rows(2);
template <class T>
constexpr int kColumns = 2 * Vec<T>::kSize;

template <class T>
using Sums = Vec<T>[kRows][2];

template <class T>
TILEGRAD_INLINE void prefetch_rows(const UpdateTile<T>& t, T* array) {
  if (array == nullptr) return;
  for (int r = 0; r < t.rows; ++r) {
    __builtin_prefetch(array + r * t.stride, 1);
    __builtin_prefetch(array + r * t.stride + t.columns - 1, 1);
  }
}

template <class T>
TILEGRAD_INLINE void add_up(const UpdateTile<T>& t, Sums<T>& sum) {
  using V = Vec<T>;
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = V(T(0));
  const T* a = t.dz;
  const T* b = t.x;
  for (int64_t p = t.k; p > 0; --p) {
    const V b0 = V::load(b);
    const V b1 = V::load(b + V::kSize);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const V element = a[r];
      sum[r][0] = fma(element, b0, sum[r][0]);
      sum[r][1] = fma(element, b1, sum[r][1]);
    }
    a += kRows;
    b += kColumns<T>;
  }
}

template <class T>
void sum_tile(const UpdateTile<T>& t, T* sums) {
  Sums<T> sum;
  add_up(t, sum);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    sum[r][0].store(sums + r * kColumns<T>);
    sum[r][1].store(sums + r * kColumns<T> + Vec<T>::kSize);
  }
}

// Through L1: edges, and rules of many steps.
template <class T, class Constants>
TILEGRAD_INLINE void update_tile(const UpdateTile<T>& t, const Constants& constants) {
  prefetch_rows(t, t.w);
  prefetch_rows(t, t.first);
  prefetch_rows(t, t.second);
  prefetch_rows(t, t.third);
  alignas(64) T sums[kRows * kColumns<T>];
  sum_tile(t, sums);
  specialize(constants, [&](Constants c) __attribute__((always_inline)) {
    for (int r = 0; r < t.rows; ++r) {
      const T* grad = sums + r * kColumns<T>;
      T* const w = t.w + r * t.stride;
      const auto row = [&](T* p) { return p == nullptr ? nullptr : p + r * t.stride; };
      T *const first = row(t.first), *const second = row(t.second), *const third = row(t.third);
      for_slots<T>(t.columns, [&](Slot<T> slot) __attribute__((always_inline)) {
        slot.store(w, update(c, slot, slot.load(w), slot.load(grad), first, second, third));
      });
    }
  });
}

template <class T>
void sgd_tile(const UpdateTile<T>& t, const SgdConstants<T>& constants) {
  using V = Vec<T>;
  SgdConstants<T> c = constants;
  const bool plain = !c.has_momentum && !c.gradient.has_weight_decay && !c.gradient.has_l1_decay;
  if (!plain || t.rows < kRows || t.columns < kColumns<T>) return update_tile(t, c);
  prefetch_rows(t, t.w);
  // Known to the compiler: no buffer is touched.
  c.has_momentum = c.gradient.has_weight_decay = c.gradient.has_l1_decay = false;
  Sums<T> sum;
  add_up(t, sum);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const Slot<T> slot{v * V::kSize, V::kSize};
      T* const w = t.w + r * t.stride;
      slot.store(w, update<T>(c, slot, slot.load(w), sum[r][v], nullptr, nullptr, nullptr));
    }
  }
}

template <class T>
void adam_tile(const UpdateTile<T>& t, const AdamConstants<T>& c) {
  update_tile(t, c);
}

template <class T>
void rmsprop_tile(const UpdateTile<T>& t, const RmspropConstants<T>& c) {
  update_tile(t, c);
}

template <class T>
void adagrad_tile(const UpdateTile<T>& t, const AdagradConstants<T>& c) {
  update_tile(t, c);
}

template <class T>
constexpr LinearUpdateKernels<T> kTable = {kRows,        kColumns<T>,     sgd_tile<T>,
                                           adam_tile<T>, rmsprop_tile<T>, adagrad_tile<T>};

}  // namespace

template <>
const LinearUpdateKernels<float>& table() {
  return kTable<float>;
}
template <>
const LinearUpdateKernels<double>& table() {
  return kTable<double>;
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
