// SPDX-License-Identifier: MIT
// Math: loss = w f(a, b, c); its gradients w f' g by each operand (../../losses.hpp).
// Shapes: runs of n elements.
// Parallelism: kSize elements an instruction; the sum in blocks (vectors.hpp).
// Memory: an operand is read once and the gradients leave with the loss: with two operands and one
//   gradient 12 bytes an element of float, 8 without.
#include "losses.hpp"

#include "../isa.hpp"
#include "activation_math.hpp"
#include "vectors.hpp"
//
#include "../../losses.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

// Of one vector; returns the losses, zero past its end.
template <class T, class F, class Access>
TILEGRAD_INLINE Vec<T> element(const LossRun<T>& run, F f, int64_t i, Access access) {
  using V = Vec<T>;
  const V a = access.load(run.a + i), b = access.load(run.b + i);
  const V c = run.c == nullptr ? V(1) : access.load(run.c + i);
  const V weight = run.weight == nullptr ? V(1) : access.load(run.weight + i);
  V factor = run.scale;
  if (run.weight != nullptr) factor *= weight;
  if (run.grad_output != nullptr) factor *= access.load(run.grad_output + i);
  if (run.gradients[0] != nullptr) access.store(run.gradients[0] + i, f.by_a(a, b, c) * factor);
  if constexpr (requires { f.by_b(a, b, c); }) {
    if (run.gradients[1] != nullptr) access.store(run.gradients[1] + i, f.by_b(a, b, c) * factor);
  }
  if constexpr (requires { f.by_c(a, b, c); }) {
    if (run.gradients[2] != nullptr) access.store(run.gradients[2] + i, f.by_c(a, b, c) * factor);
  }
  if (run.loss == nullptr && !run.sum) return V(0);
  V loss = f.value(a, b, c);
  if (run.weight != nullptr) loss *= weight;
  if (run.loss != nullptr) access.store(run.loss + i, loss);
  return access.keep(loss);
}

// kTraining: nothing but the sum and the gradient of a is wanted, which the compiler then knows.
template <bool kTraining, class T, class F>
[[gnu::flatten, gnu::noinline]] double sum_of(const LossRun<T>& arguments, F f) {
  LossRun<T> run = arguments;
  if constexpr (kTraining) {
    run.loss = run.gradients[1] = run.gradients[2] = nullptr;
    run.grad_output = run.c = run.weight = nullptr;
    run.sum = true;
  }
  return blocked_sum<Vec<T>>(run.n,
                             [&](int64_t i, auto access) { return element(run, f, i, access); });
}

template <class T>
double losses(const LossFunction& loss, const LossRun<T>& run) {
  const bool training = run.loss == nullptr && run.gradients[1] == nullptr &&
                        run.gradients[2] == nullptr && run.grad_output == nullptr &&
                        run.c == nullptr && run.weight == nullptr && run.sum;
  return visit(loss,
               [&](auto f) { return training ? sum_of<true>(run, f) : sum_of<false>(run, f); });
}

template <class T>
bool inside(const T* x, int64_t n, Range<T> range) {
  using V = Vec<T>;
  bool result = true;
  for_vectors<V>(0, n, [&](int64_t i, int, auto access) {
    V value = access.load(x + i, range.low);
    if (range.has_nan) value = select(isnan(value), V(range.low), value);
    result &= all((value >= V(range.low)) & (value <= V(range.high)));
  });
  return result;
}

template <class T>
constexpr LossKernels<T> kTable = {losses<T>, inside<T>};

}  // namespace

template <>
const LossKernels<float>& table() {
  return kTable<float>;
}
template <>
const LossKernels<double>& table() {
  return kTable<double>;
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
