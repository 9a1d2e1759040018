// SPDX-License-Identifier: MIT
// Math: dW = dz^T x and at once W = rule(W, dW);  dx = dz W from the old W, db = sum over rows.
// Shapes: x (rows, in), W (out, in), dz (rows, out).
// Parallelism: a task owns a panel of rows of W: the tiles of simd/linear_update.cpp along it.
// Memory: x and dz are packed once, x into half of L2; a weight is read and written once, its
//   gradient never. With more rows than that a gradient costs next to nothing: it is stored.
#include "linear_update.hpp"

#include <algorithm>

#include "linear.hpp"
#include "matmul_path.hpp"
#include "parallel.hpp"
#include "simd/linear_update.hpp"
#include "simd/matmul.hpp"
#include "sizes.hpp"

namespace tilegrad::cpu {
namespace {

constexpr int64_t kSmallWeight = int64_t{1} << 14;
constexpr int64_t kPackedBytes = int64_t{1} << 20;  // of x
constexpr int64_t kStoredGrain = 16384;
constexpr double kPackNanoseconds = 0.15;  // an element

// One chain of fma a sum: as matmul has it within a block of k.
bool fits_tiles(LinearSize size, int64_t element_bytes) {
  return size.rows <= k_block(size.rows, element_bytes) &&
         size.rows * size.in_features * element_bytes <= kPackedBytes;
}

template <class T>
void update_by_tiles(Context& context, const OptimTensor<T>& weight, const T* dz, int64_t stride,
                     const T* x, LinearSize size, const UpdateRule<T>& rule) {
  const auto [rows, in, out] = size;
  const auto& kernel = kernels<LinearUpdateKernels<T>>();
  const auto& pack = kernels<MatmulKernels<T>>().pack;
  const int64_t height = kernel.rows, width = kernel.columns;
  const int64_t panels = ceil_div(out, height), columns = ceil_div(in, width);
  T* const packed_dz = context.workspace->take<T>(panels * height * rows);
  T* const packed_x = context.workspace->take<T>(columns * width * rows);
  parallel_for(context, panels + columns, kPackNanoseconds * static_cast<double>(rows * (in + out)),
               [&](int64_t panel, int) {
                 if (panel < panels) {
                   const int64_t i = panel * height;
                   pack(packed_dz + i * rows, height, dz + i, 1, stride, std::min(height, out - i),
                        rows);
                 } else {
                   const int64_t j = (panel - panels) * width;
                   pack(packed_x + j * rows, width, x + j, 1, in, std::min(width, in - j), rows);
                 }
               });
  const double nanoseconds = matmul_nanoseconds(out, in, rows, sizeof(T)) +
                             static_cast<double>(weight.size) * rule.nanoseconds;
  std::visit(
      [&](const auto& c) {
        const auto update = kernel_for(kernel, c);
        parallel_for(context, panels, nanoseconds, [&](int64_t panel, int) {
          const int64_t i = panel * height;
          for (int64_t j = 0; j < in; j += width) {
            const auto at = [&](T* p) { return p == nullptr ? nullptr : p + i * in + j; };
            update({packed_dz + i * rows, packed_x + j * rows, rows, at(weight.data),
                    at(weight.first), at(weight.second), at(weight.third), in,
                    static_cast<int>(std::min(height, out - i)),
                    static_cast<int>(std::min(width, in - j))},
                   c);
          }
        });
      },
      rule.constants);
}

}  // namespace

bool worth_fusing(int64_t weight_elements) { return weight_elements >= kSmallWeight; }

template <class T>
void linear_backward_update(Context& context, T* dx, T* dweight, T* dbias,
                            const OptimTensor<T>& weight, const T* dy, const T* x, const T* saved,
                            bool saved_is_output, LinearSize size, Activation activation,
                            const UpdateRule<T>& rule) {
  const auto [rows, in, out] = size;
  WorkspaceScope scope(context);
  const auto [dz, stride] =
      layer_gradient(context, dbias, dy, saved, saved_is_output, size, activation, false);
  if (dx != nullptr) {
    matmul<T>(context, {dx, in, 1}, {dz, stride, 1}, {weight.data, in, 1}, {1, rows, in, out});
  }
  if (fits_tiles(size, sizeof(T))) {
    return update_by_tiles(context, weight, dz, stride, x, size, rule);
  }
  matmul<T>(context, {dweight, in, 1}, {dz, 1, stride}, {x, in, 1}, {1, out, in, rows});
  parallel_ranges(
      context, weight.size, kStoredGrain, static_cast<double>(weight.size) * rule.nanoseconds,
      [&](int64_t begin, int64_t end, int) { rule(weight, begin, end - begin, dweight + begin); });
}

template void linear_backward_update(Context&, float*, float*, float*, const OptimTensor<float>&,
                                     const float*, const float*, const float*, bool, LinearSize,
                                     Activation, const UpdateRule<float>&);
template void linear_backward_update(Context&, double*, double*, double*,
                                     const OptimTensor<double>&, const double*, const double*,
                                     const double*, bool, LinearSize, Activation,
                                     const UpdateRule<double>&);

}  // namespace tilegrad::cpu
