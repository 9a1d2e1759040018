// SPDX-License-Identifier: MIT
// Math: x_j = x_j a + b in kChains independent chains, enough to hide the latency of an FMA
//   (4 cycles, two units). Nothing touches memory, so the rate is the peak of the arithmetic.
#include "machine.hpp"

#include "../isa.hpp"
#include "vec.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

constexpr int kChains = 12;

template <class T>
double multiply_add(int64_t rounds, T* sink) {
  using V = Vec<T>;
  const V a(T(0.999)), b(T(0.001));
  V x[kChains];
  for (int j = 0; j < kChains; ++j) x[j] = V(T(j));
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) x[j] = fma(x[j], a, b);
  }
  V sum = x[0];
  for (int j = 1; j < kChains; ++j) sum += x[j];
  *sink = reduce_add(sum);
  return 2.0 * V::kSize * kChains * static_cast<double>(rounds);
}

template <class T>
constexpr MachineKernels<T> kTable = {multiply_add<T>};

}  // namespace

template <>
const MachineKernels<float>& table() {
  return kTable<float>;
}
template <>
const MachineKernels<double>& table() {
  return kTable<double>;
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
