// SPDX-License-Identifier: MIT
// Math: y = x where x > 0, else w[c] x; dx = dy f'; dw[c] = sum over x <= 0 of x dy.
// Shapes: x (outer, channels, inner), w (channels); one channel is one slope for all.
// Parallelism: pieces of x of any length; kernels take runs that have one slope, or with inner = 1
//   one slope each.
// Memory: dw's terms are written to workspace and summed by sum_axis, first over inner.
// Source: He, Zhang, Ren, Sun 2015, arXiv:1502.01852.
#include "simd/prelu.hpp"

#include <algorithm>

#include "../ops.hpp"
#include "isa.hpp"
#include "parallel.hpp"

namespace tilegrad::cpu {
namespace {

constexpr int64_t kGrain = 16384;

// f(begin, count, slope, slope_step) for the runs of x.
template <class T, class F>
void for_runs(Context& context, ClassShape shape, const T* weight, F f) {
  const auto [outer, channels, inner] = shape;
  const int64_t n = outer * channels * inner;
  const bool each = inner == 1 && channels > 1;
  const int64_t length = channels == 1 ? n : each ? channels : inner;
  parallel_ranges(context, n, kGrain, 0.05 * sizeof(T) * static_cast<double>(n),
                  [&](int64_t begin, int64_t end, int) {
                    for (int64_t i = begin; i < end;) {
                      const int64_t count = std::min(end - i, length - i % length);
                      const int64_t channel = each ? i % length : i / length % channels;
                      f(i, count, weight + channel, each ? 1 : 0);
                      i += count;
                    }
                  });
}

}  // namespace

template <class T>
void prelu(Context& context, T* y, const T* x, const T* weight, ClassShape shape) {
  const auto& kernel = kernels<PreluKernels<T>>();
  for_runs(context, shape, weight, [&](int64_t i, int64_t count, const T* slope, int step) {
    kernel.forward(y + i, x + i, slope, step, count);
  });
}

template <class T, class G>
void prelu_backward(Context& context, T* dx, G* dweight, const T* dy, const T* x, const T* weight,
                    ClassShape shape, bool accumulate) {
  const auto [outer, channels, inner] = shape;
  const auto& kernel = kernels<PreluKernels<T>>();
  WorkspaceScope scope(context);
  T* const terms =
      dweight == nullptr ? nullptr : context.workspace->take<T>(outer * channels * inner);
  for_runs(context, shape, weight, [&](int64_t i, int64_t count, const T* slope, int step) {
    kernel.backward(dx == nullptr ? nullptr : dx + i, terms == nullptr ? nullptr : terms + i,
                    dy + i, x + i, slope, step, count);
  });
  if (dweight == nullptr) return;
  if (channels == 1) return sum_axis(context, dweight, terms, 1, outer * inner, 1, accumulate);
  T* sums = terms;
  if (inner != 1) {
    sums = context.workspace->take<T>(outer * channels);
    sum_axis(context, sums, terms, outer * channels, inner, 1, false);
  }
  sum_axis(context, dweight, sums, 1, outer, channels, accumulate);
}

// 16 bits are float in workspace.
template <>
void prelu(Context& context, bfloat16* y, const bfloat16* x, const bfloat16* weight,
           ClassShape shape) {
  const int64_t n = shape.outer * shape.classes * shape.inner;
  WorkspaceScope scope(context);
  float* const values = context.workspace->take<float>(n + shape.classes);
  convert(context, values, x, n);
  convert(context, values + n, weight, shape.classes);
  prelu(context, values, values, values + n, shape);
  convert(context, y, values, n);
}

template <>
void prelu_backward(Context& context, bfloat16* dx, float* dweight, const bfloat16* dy,
                    const bfloat16* x, const bfloat16* weight, ClassShape shape, bool accumulate) {
  const int64_t n = shape.outer * shape.classes * shape.inner;
  WorkspaceScope scope(context);
  float* const values = context.workspace->take<float>(2 * n + shape.classes);
  float *const gradient = values + n, *const slope = gradient + n;
  convert(context, values, x, n);
  convert(context, gradient, dy, n);
  convert(context, slope, weight, shape.classes);
  prelu_backward(context, dx == nullptr ? nullptr : gradient, dweight, gradient, values, slope,
                 shape, accumulate);
  if (dx != nullptr) convert(context, dx, gradient, n);
}

template <>
void prelu_backward(Context& context, bfloat16* dx, bfloat16* dweight, const bfloat16* dy,
                    const bfloat16* x, const bfloat16* weight, ClassShape shape, bool) {
  WorkspaceScope scope(context);
  float* const sums = dweight == nullptr ? nullptr : context.workspace->take<float>(shape.classes);
  prelu_backward(context, dx, sums, dy, x, weight, shape, false);
  if (dweight != nullptr) convert(context, dweight, sums, shape.classes);
}

template void prelu(Context&, float*, const float*, const float*, ClassShape);
template void prelu(Context&, double*, const double*, const double*, ClassShape);
template void prelu_backward(Context&, float*, float*, const float*, const float*, const float*,
                             ClassShape, bool);
template void prelu_backward(Context&, double*, double*, const double*, const double*,
                             const double*, ClassShape, bool);

}  // namespace tilegrad::cpu
