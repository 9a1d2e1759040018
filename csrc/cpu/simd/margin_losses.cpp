// SPDX-License-Identifier: MIT
// Math: sum over c != t of max(0, margin - x_t + x_c)^p; the same over the listed t and the c that
//   are not listed; sum over c of a label's cross-entropy (../../row_losses.hpp).
// Shapes: a row of n elements.
// Parallelism: kSize classes an instruction; a row's sum in blocks (vectors.hpp).
// Memory: x is read once and the gradient leaves with the loss; for lists both once an entry.
// Source: the classes are ../../row_losses.hpp's.
#include "margin_losses.hpp"

#include "../../row_losses.hpp"
#include "../isa.hpp"
#include "activation_math.hpp"
#include "vectors.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

struct HingeSums {
  double value, slope;
};

// Over x[0, n), with dx = factor * slope.
template <class T>
TILEGRAD_INLINE HingeSums hinge_sums(T* dx, const T* x, int64_t n, T base, Hinge hinge, T factor) {
  using V = Vec<T>;
  double sums[2];
  blocked_sums<V>(sums, n, [&](int64_t i, auto access, V(&terms)[2]) {
    const V z = V(base) + access.load(x + i);
    terms[0] = access.keep(hinge.value(z));
    terms[1] = access.keep(hinge.slope(z));
    if (dx != nullptr) access.store(dx + i, terms[1] * V(factor));
  });
  return {sums[0], sums[1]};
}

template <class T>
[[gnu::flatten]] double multi_margin(T* dx, const T* x, int64_t n, int64_t target, T margin,
                                     bool squared, T factor) {
  const Hinge hinge{squared};
  const T base = margin - x[target];
  T* const behind = dx == nullptr ? nullptr : dx + target + 1;
  const HingeSums low = hinge_sums(dx, x, target, base, hinge, factor);
  const HingeSums high = hinge_sums(behind, x + target + 1, n - target - 1, base, hinge, factor);
  if (dx != nullptr) dx[target] = -static_cast<T>((low.slope + high.slope) * factor);
  return low.value + high.value;
}

// Classes that are listed become -inf, which no margin reaches. dx counts first, exactly.
template <class T>
[[gnu::flatten]] double multilabel_margin(T* dx, T* rest, const T* x, int64_t n,
                                          const int64_t* listed, int64_t count, T factor) {
  using V = Vec<T>;
  for_vectors<V>(0, n, [&](int64_t i, int, auto access) {
    access.store(rest + i, access.load(x + i));
    if (dx != nullptr) access.store(dx + i, V(T(0)));
  });
  for (int64_t k = 0; k < count; ++k) rest[listed[k]] = -__builtin_inff();
  double total = 0;
  for (int64_t k = 0; k < count; ++k) {
    const V base = T(1) - x[listed[k]];
    double sums[2];
    blocked_sums<V>(sums, n, [&](int64_t i, auto access, V(&terms)[2]) {
      const V z = base + access.load(rest + i, -__builtin_inff());
      terms[0] = Hinge{}.value(z);
      terms[1] = Hinge{}.slope(z);
      if (dx != nullptr) access.store(dx + i, access.load(dx + i) + terms[1]);
    });
    total += sums[0];
    if (dx != nullptr) dx[listed[k]] -= static_cast<T>(sums[1]);
  }
  if (dx != nullptr) {
    for_vectors<V>(0, n, [&](int64_t i, int, auto access) {
      access.store(dx + i, access.load(dx + i) * V(factor));
    });
  }
  return total;
}

template <class T>
[[gnu::flatten]] double label_cross_entropy(T* dx, T* dt, const T* x, const T* t, const T* weight,
                                            int64_t n, T factor) {
  using V = Vec<T>;
  return blocked_sum<V>(n, [&](int64_t i, auto access) {
    const V value = access.load(x + i);
    const auto terms = LabelCrossEntropy::terms(value, access.load(t + i));
    const V w = weight == nullptr ? V(T(1)) : access.load(weight + i), scale = w * V(factor);
    if (dx != nullptr) access.store(dx + i, scale * terms.dinput);
    if (dt != nullptr) access.store(dt + i, -(scale * value));
    return access.keep(w * terms.loss);
  });
}

template <class T>
constexpr MarginKernels<T> kTable = {multi_margin<T>, multilabel_margin<T>, label_cross_entropy<T>};

}  // namespace

template <>
const MarginKernels<float>& table() {
  return kTable<float>;
}
template <>
const MarginKernels<double>& table() {
  return kTable<double>;
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
