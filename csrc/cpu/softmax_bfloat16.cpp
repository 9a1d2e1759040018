// SPDX-License-Identifier: MIT
// Math, shapes: softmax.cpp, on bfloat16 between a widening and a rounding.
// Parallelism, memory: bfloat16_rows.hpp.
#include "../ops.hpp"
#include "bfloat16_rows.hpp"
#include "isa.hpp"
#include "simd/convert.hpp"
#include "simd/softmax.hpp"

namespace tilegrad::cpu {

template <>
void softmax(Context& context, bfloat16* y, const bfloat16* x, ClassShape shape, bool log) {
  const auto& convert = kernels<ConvertKernels>();
  const auto& kernel = kernels<SoftmaxKernels<float>>();
  for_parts(context, shape, 1, [&](const Bfloat16Part& part, auto scratch) {
    float* const row = scratch(0);
    part.widen(convert, row, x);
    kernel.forward(row, row, part.packed(), log, scratch(1));
    part.narrow(convert, y, row);
  });
}

template <>
void softmax_backward(Context& context, bfloat16* dx, const bfloat16* dy, const bfloat16* y,
                      ClassShape shape, bool log) {
  const auto& convert = kernels<ConvertKernels>();
  const auto& kernel = kernels<SoftmaxKernels<float>>();
  for_parts(context, shape, 2, [&](const Bfloat16Part& part, auto scratch) {
    float* const gradient = scratch(0);
    float* const result = scratch(1);
    part.widen(convert, gradient, dy);
    part.widen(convert, result, y);
    kernel.backward(gradient, gradient, result, part.packed(), log);
    part.narrow(convert, dx, gradient);
  });
}

}  // namespace tilegrad::cpu
