// SPDX-License-Identifier: MIT
// Math: y = f(x W^T + b);  dz = dy f'(z), dx = dz W, dW = dz^T x, db = sum over rows of dz.
// Shapes: x (rows, in), W (out, in), y and dz (rows, out), all bfloat16; dW and db that or float.
// Parallelism: that of matmul; W is transposed by its strides alone.
// Memory: bias and f are applied to float32 sums; dz is rounded to bfloat16 and kept in workspace.
#include <algorithm>

#include "isa.hpp"
#include "matmul_bfloat16.hpp"
#include "parallel.hpp"
#include "simd/activation.hpp"

namespace tilegrad::cpu {
namespace {

constexpr int64_t kChunk = 1024;  // elements of dz in float32 at a time: 12 KiB of L1
constexpr double kNanosecondsAnElement = 1;

void gradient_of_activation(Context& context, bfloat16* dz, const bfloat16* dy,
                            const bfloat16* saved, bool saved_is_output, int64_t n,
                            Activation activation) {
  const auto& kernel = kernels<ActivationKernels<float>>();
  const auto& convert = kernels<MatmulBfloat16Kernels>();
  parallel_ranges(context, n, kChunk, kNanosecondsAnElement * static_cast<double>(n),
                  [&](int64_t begin, int64_t end, int) {
                    float gradient[kChunk], value[kChunk];
                    convert.widen(gradient, dy + begin, end - begin);
                    convert.widen(value, saved + begin, end - begin);
                    kernel.backward(gradient, gradient, value, saved_is_output, end - begin,
                                    activation);
                    convert.narrow(dz + begin, gradient, end - begin);
                  });
}

void product(Context& context, bfloat16* c, int64_t row_stride, Matrix<const bfloat16> a,
             Matrix<const bfloat16> b, MatmulSize size, bool accumulate) {
  matmul<bfloat16>(context, {c, row_stride, 1}, a, b, size, 1, accumulate ? 1 : 0);
}

void product(Context& context, float* c, int64_t row_stride, Matrix<const bfloat16> a,
             Matrix<const bfloat16> b, MatmulSize size, bool accumulate) {
  matmul_to_float(context, {c, row_stride, 1}, a, b, size, 1, accumulate ? 1 : 0);
}

// The sums over rows of dz.
void bias_gradient(Context& context, float* dbias, const bfloat16* dz, int64_t rows, int64_t out,
                   bool accumulate) {
  const auto& convert = kernels<MatmulBfloat16Kernels>();
  float* wide = context.workspace->take<float>(rows * out);
  parallel_ranges(context, rows * out, kChunk,
                  kNanosecondsAnElement * static_cast<double>(rows * out),
                  [&](int64_t begin, int64_t end, int) {
                    convert.widen(wide + begin, dz + begin, end - begin);
                  });
  sum_axis<float>(context, dbias, wide, 1, rows, out, accumulate);
}

void bias_gradient(Context& context, bfloat16* dbias, const bfloat16* dz, int64_t rows, int64_t out,
                   bool accumulate) {
  const auto& convert = kernels<MatmulBfloat16Kernels>();
  float* sums = context.workspace->take<float>(out);
  if (accumulate) convert.widen(sums, dbias, out);
  bias_gradient(context, sums, dz, rows, out, accumulate);
  convert.narrow(dbias, sums, out);
}

template <class G>
void backward(Context& context, bfloat16* dx, G* dweight, G* dbias, const bfloat16* dy,
              const bfloat16* x, const bfloat16* weight, const bfloat16* saved,
              bool saved_is_output, LinearSize size, Activation activation, bool accumulate) {
  const auto [rows, in, out] = size;
  WorkspaceScope scope(context);
  const bfloat16* dz = dy;
  if (activation.kind != ActivationKind::identity) {
    bfloat16* gradient = context.workspace->take<bfloat16>(rows * out);
    gradient_of_activation(context, gradient, dy, saved, saved_is_output, rows * out, activation);
    dz = gradient;
  }
  if (dx != nullptr) {
    product(context, dx, in, {dz, out, 1}, {weight, in, 1}, {1, rows, in, out}, false);
  }
  if (dweight != nullptr) {
    product(context, dweight, in, {dz, 1, out}, {x, in, 1}, {1, out, in, rows}, accumulate);
  }
  if (dbias != nullptr) bias_gradient(context, dbias, dz, rows, out, accumulate);
}

}  // namespace

template <>
void linear(Context& context, bfloat16* y, bfloat16* preactivation, const bfloat16* x,
            const bfloat16* weight, const bfloat16* bias, LinearSize size, Activation activation) {
  const auto [rows, in, out] = size;
  matmul<bfloat16>(context, {y, out, 1}, {x, in, 1}, {weight, 1, in}, {1, rows, out, in}, 1, 0,
                   {bias, activation, preactivation});
}

template <>
void linear_backward(Context& context, bfloat16* dx, bfloat16* dweight, bfloat16* dbias,
                     const bfloat16* dy, const bfloat16* x, const bfloat16* weight,
                     const bfloat16* saved, bool saved_is_output, LinearSize size,
                     Activation activation, bool accumulate) {
  backward(context, dx, dweight, dbias, dy, x, weight, saved, saved_is_output, size, activation,
           accumulate);
}

template <>
void linear_backward(Context& context, bfloat16* dx, float* dweight, float* dbias,
                     const bfloat16* dy, const bfloat16* x, const bfloat16* weight,
                     const bfloat16* saved, bool saved_is_output, LinearSize size,
                     Activation activation, bool accumulate) {
  backward(context, dx, dweight, dbias, dy, x, weight, saved, saved_is_output, size, activation,
           accumulate);
}

}  // namespace tilegrad::cpu
