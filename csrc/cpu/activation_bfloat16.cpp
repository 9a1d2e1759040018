// SPDX-License-Identifier: MIT
// Math: y = f(x), dx = dy f'(x) on bfloat16: those on float between a widening and a rounding.
// Shapes: x, y, dx, dy (n).
// Parallelism: a task is a run of kGrain elements.
// Memory: 2 bytes an element in and out; a block is float in L1, where the kernel works in place.
#include <algorithm>

#include "../ops.hpp"
#include "isa.hpp"
#include "parallel.hpp"
#include "simd/activation.hpp"
#include "simd/convert.hpp"

namespace tilegrad::cpu {
namespace {

constexpr int64_t kBlock = 2048;        // elements that are float at a time: 8 KiB
constexpr int64_t kGrain = 8 * kBlock;  // elements that a task takes
constexpr double kNanosecondsAnElement = 0.6;

// f(begin, count) for the blocks of a run, on the pool.
template <class F>
void for_blocks(const Context& context, int64_t n, F f) {
  const double time = kNanosecondsAnElement * static_cast<double>(n);
  parallel_ranges(context, n, kGrain, time, [&](int64_t begin, int64_t end, int) {
    for (int64_t at = begin; at < end; at += kBlock) f(at, std::min(kBlock, end - at));
  });
}

}  // namespace

template <>
void activation(Context& context, bfloat16* y, const bfloat16* x, int64_t n, Activation f) {
  const auto& convert = kernels<ConvertKernels>();
  const auto& kernel = kernels<ActivationKernels<float>>();
  for_blocks(context, n, [&](int64_t at, int64_t count) {
    alignas(64) float block[kBlock];
    convert.widen(block, x + at, count);
    kernel.forward(block, block, count, f);
    convert.narrow(y + at, block, count);
  });
}

template <>
void activation_backward(Context& context, bfloat16* dx, const bfloat16* dy, const bfloat16* saved,
                         bool saved_is_output, int64_t n, Activation f) {
  const auto& convert = kernels<ConvertKernels>();
  const auto& kernel = kernels<ActivationKernels<float>>();
  for_blocks(context, n, [&](int64_t at, int64_t count) {
    alignas(64) float gradient[kBlock], value[kBlock];
    convert.widen(gradient, dy + at, count);
    convert.widen(value, saved + at, count);
    kernel.backward(gradient, gradient, value, saved_is_output, count, f);
    convert.narrow(dx + at, gradient, count);
  });
}

}  // namespace tilegrad::cpu
