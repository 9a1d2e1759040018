// SPDX-License-Identifier: MIT
// Math: loss = w (x - t)^2, dx = 2 (x - t) w g, dt = -dx.
// Shapes: runs of n elements.
// Parallelism: kSize elements an instruction; the sum in blocks (vectors.hpp).
// Memory: x, t and w are read once and the gradients leave with the loss: 16 bytes an element of
//   float with dx, 8 without.
#include "losses.hpp"

#include "../isa.hpp"
#include "vectors.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

template <class T>
[[gnu::flatten]] double mse(const LossRun<T>& arguments) {
  using V = Vec<T>;
  const LossRun<T> run = arguments;
  const V scale = run.scale + run.scale;
  return blocked_sum<V>(run.n, [&](int64_t i, auto access) {
    const V difference = access.load(run.input + i) - access.load(run.target + i);
    V weighted = difference;
    if (run.weight != nullptr) weighted *= access.load(run.weight + i);
    const V loss = difference * weighted;
    if (run.dinput != nullptr || run.dtarget != nullptr) {
      V gradient = weighted * scale;
      if (run.grad_output != nullptr) gradient *= access.load(run.grad_output + i);
      if (run.dinput != nullptr) access.store(run.dinput + i, gradient);
      if (run.dtarget != nullptr) access.store(run.dtarget + i, -gradient);
    }
    if (run.loss != nullptr) access.store(run.loss + i, loss);
    return loss;
  });
}

template <class T>
constexpr LossKernels<T> kTable = {mse<T>};

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
