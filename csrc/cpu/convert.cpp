// SPDX-License-Identifier: MIT
// convert: runs of an array for the threads; the kernels are in simd/.
#include "simd/convert.hpp"

#include "../ops.hpp"
#include "isa.hpp"
#include "parallel.hpp"

namespace tilegrad::cpu {
namespace {

constexpr int64_t kGrain = 32768;  // elements a task
constexpr double kNanosecondsAnElement = 0.15;

}  // namespace

template <>
void convert(Context& context, float* y, const bfloat16* x, int64_t n) {
  const auto& kernel = kernels<ConvertKernels>();
  parallel_ranges(
      context, n, kGrain, kNanosecondsAnElement * static_cast<double>(n),
      [&](int64_t begin, int64_t end, int) { kernel.widen(y + begin, x + begin, end - begin); });
}

template <>
void convert(Context& context, bfloat16* y, const float* x, int64_t n) {
  const auto& kernel = kernels<ConvertKernels>();
  parallel_ranges(
      context, n, kGrain, kNanosecondsAnElement * static_cast<double>(n),
      [&](int64_t begin, int64_t end, int) { kernel.narrow(y + begin, x + begin, end - begin); });
}

}  // namespace tilegrad::cpu
