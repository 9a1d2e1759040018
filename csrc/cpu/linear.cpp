// SPDX-License-Identifier: MIT
// Math: y = f(x W^T + b);  dz = dy f'(z), dx = dz W, dW = dz^T x, db = sum over rows of dz.
// Shapes: x (rows, in), W (out, in), y and dz (rows, out).
// Parallelism: that of matmul; W is transposed by its strides alone.
// Memory: bias and f are applied to a block of y while it is in cache; dz is kept in workspace.
#include "../ops.hpp"

namespace tilegrad::cpu {

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
  const T* dz = dy;
  if (activation.kind != ActivationKind::identity) {
    T* product = context.workspace->take<T>(rows * out);
    activation_backward<T>(context, product, dy, saved, saved_is_output, rows * out, activation);
    dz = product;
  }
  if (dx != nullptr) {
    matmul<T>(context, {dx, in, 1}, {dz, out, 1}, {weight, in, 1}, {1, rows, in, out});
  }
  if (dweight != nullptr) {
    matmul<T>(context, {dweight, in, 1}, {dz, 1, out}, {x, in, 1}, {1, out, in, rows}, 1,
              accumulate ? 1 : 0);
  }
  if (dbias != nullptr) sum_axis<T>(context, dbias, dz, 1, rows, out, accumulate);
}

template void linear(Context&, float*, float*, const float*, const float*, const float*, LinearSize,
                     Activation);
template void linear(Context&, double*, double*, const double*, const double*, const double*,
                     LinearSize, Activation);
template void linear_backward(Context&, float*, float*, float*, const float*, const float*,
                              const float*, const float*, bool, LinearSize, Activation, bool);
template void linear_backward(Context&, double*, double*, double*, const double*, const double*,
                              const double*, const double*, bool, LinearSize, Activation, bool);

}  // namespace tilegrad::cpu
