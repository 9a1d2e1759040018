// SPDX-License-Identifier: MIT
// Math: y = f(x W^T + b);  dz = dy f'(z), dx = dz W, dW = dz^T x, db = sum over rows of dz.
// Shapes: x (rows, in), W (out, in), y and dz (rows, out).
// Parallelism: that of matmul; W is transposed by its strides alone. dz and db are made by tasks of
//   kColumns columns, all rows, so that no sum is split.
// Memory: bias and f are applied to a block of y while it is in cache; dz is kept in workspace, and
//   a block of it is summed to db while it is in L1.
#include "linear.hpp"

#include <algorithm>

#include "isa.hpp"
#include "matmul_path.hpp"
#include "parallel.hpp"
#include "simd/activation.hpp"
#include "simd/reduce.hpp"

namespace tilegrad::cpu {
namespace {

constexpr int64_t kColumns = 128;   // of dz that a task computes and sums
constexpr int64_t kRows = 64;       // summed at a time: kRows * kColumns elements stay in L1
constexpr int64_t kMostRows = 512;  // beyond, rows must be shared among threads too

// dz, rows `stride` apart, and db by one pass; db may be null.
template <class T>
void gradient_and_bias(Context& context, T* dz, int64_t stride, T* dbias, const T* dy,
                       const T* saved, bool saved_is_output, int64_t rows, int64_t out,
                       Activation activation, bool accumulate) {
  const auto& slope = kernels<ActivationKernels<T>>();
  const auto& sum = kernels<SumKernels<T>>();
  parallel_for(context, (out + kColumns - 1) / kColumns, 0.3 * static_cast<double>(rows * out),
               [&](int64_t task, int) {
                 const int64_t j = task * kColumns;
                 const int64_t columns = std::min(kColumns, out - j);
                 double totals[kColumns] = {};
                 double block_totals[kColumns];
                 for (int64_t begin = 0; begin < rows; begin += kRows) {
                   const int64_t end = std::min(rows, begin + kRows);
                   for (int64_t r = begin; r < end; ++r) {
                     slope.backward(dz + r * stride + j, dy + r * out + j, saved + r * out + j,
                                    saved_is_output, columns, activation);
                   }
                   if (dbias == nullptr) continue;
                   sum.columns(block_totals, dz + begin * stride + j, end - begin, columns, stride);
                   for (int64_t i = 0; i < columns; ++i) totals[i] += block_totals[i];
                 }
                 for (int64_t i = 0; dbias != nullptr && i < columns; ++i) {
                   const T total = static_cast<T>(totals[i]);
                   dbias[j + i] = accumulate ? dbias[j + i] + total : total;
                 }
               });
}

}  // namespace

template <class T>
LayerGradient<T> layer_gradient(Context& context, T* dbias, const T* dy, const T* saved,
                                bool saved_is_output, LinearSize size, Activation activation,
                                bool accumulate) {
  const auto [rows, in, out] = size;
  if (activation.kind == ActivationKind::identity) {
    if (dbias != nullptr) sum_axis<T>(context, dbias, dy, 1, rows, out, accumulate);
    return {dy, out};
  }
  if (out < 2 * kColumns || rows > kMostRows) {
    T* const dz = context.workspace->take<T>(rows * out);
    activation_backward<T>(context, dz, dy, saved, saved_is_output, rows * out, activation);
    if (dbias != nullptr) sum_axis<T>(context, dbias, dz, 1, rows, out, accumulate);
    return {dz, out};
  }
  // Rows that do not meet in the same sets of L1: the products then read dz in place.
  const int64_t stride = out + (lines_collide({out, 1}, sizeof(T)) ? 64 / sizeof(T) : 0);
  T* const dz = context.workspace->take<T>(rows * stride);
  gradient_and_bias(context, dz, stride, dbias, dy, saved, saved_is_output, rows, out, activation,
                    accumulate);
  return {dz, stride};
}

template <class T>
void linear(Context& context, T* y, T* preactivation, const T* x, const T* weight, const T* bias,
            LinearSize size, Activation activation) {
  const auto [rows, in, out] = size;
  matmul<T>(context, {y, out, 1}, {x, in, 1}, {weight, 1, in}, {1, rows, out, in}, 1, 0,
            {bias, activation, preactivation});
}

template <class T, class G>
void linear_backward(Context& context, T* dx, G* dweight, G* dbias, const T* dy, const T* x,
                     const T* weight, const T* saved, bool saved_is_output, LinearSize size,
                     Activation activation, bool accumulate) {
  const auto [rows, in, out] = size;
  WorkspaceScope scope(context);
  const auto [dz, stride] =
      layer_gradient(context, dbias, dy, saved, saved_is_output, size, activation, accumulate);
  if (dx != nullptr) {
    matmul<T>(context, {dx, in, 1}, {dz, stride, 1}, {weight, in, 1}, {1, rows, in, out});
  }
  if (dweight != nullptr) {
    matmul<T>(context, {dweight, in, 1}, {dz, 1, stride}, {x, in, 1}, {1, out, in, rows}, 1,
              accumulate ? 1 : 0);
  }
}

template LayerGradient<float> layer_gradient(Context&, float*, const float*, const float*, bool,
                                             LinearSize, Activation, bool);
template LayerGradient<double> layer_gradient(Context&, double*, const double*, const double*, bool,
                                              LinearSize, Activation, bool);
template void linear(Context&, float*, float*, const float*, const float*, const float*, LinearSize,
                     Activation);
template void linear(Context&, double*, double*, const double*, const double*, const double*,
                     LinearSize, Activation);
template void linear_backward(Context&, float*, float*, float*, const float*, const float*,
                              const float*, const float*, bool, LinearSize, Activation, bool);
template void linear_backward(Context&, double*, double*, double*, const double*, const double*,
                              const double*, const double*, bool, LinearSize, Activation, bool);

}  // namespace tilegrad::cpu
