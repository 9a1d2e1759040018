// SPDX-License-Identifier: MIT
// Math: widen: the bits of y are those of x above 16 zeros. narrow: bits + 0x7fff + (last kept bit)
//   carries into the upper half exactly where the lower half is above its middle, or at it and the
//   upper half odd; from the largest number it carries into infinity.
// Shapes: runs of n elements.
// Parallelism: integer arithmetic on a vector of floats; the last few go through the same code.
// Memory: 6 bytes an element.
// Source: IEEE 754-2019, section 4.3.1, on the bits; no avx512_bf16, whose instruction makes zeros
//   of denormals.
#include "convert.hpp"

#include "../isa.hpp"
#include "halves.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

using V = Vec<float>;

void widen(float* y, const bfloat16* x, int64_t n) {
  int64_t i = 0;
  for (; i + V::kSize <= n; i += V::kSize) widened(load_halves(x + i)).store(y + i);
  if (i < n) widened(load_halves(x + i, n - i)).store_partial(y + i, static_cast<int>(n - i));
}

void narrow(bfloat16* y, const float* x, int64_t n) {
  int64_t i = 0;
  for (; i + V::kSize <= n; i += V::kSize) store_halves(y + i, narrowed(V::load(x + i)));
  if (i < n) {
    store_halves(y + i, n - i, narrowed(V::load_partial(x + i, static_cast<int>(n - i))));
  }
}

constexpr ConvertKernels kTable = {widen, narrow};

}  // namespace

template <>
const ConvertKernels& table() {
  return kTable;
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
