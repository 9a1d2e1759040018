// SPDX-License-Identifier: MIT
// mse_loss: cuts the run into blocks of kBlock elements, whose sums are added in order.
#include "simd/losses.hpp"

#include <algorithm>

#include "../ops.hpp"
#include "isa.hpp"
#include "parallel.hpp"
#include "reduce.hpp"

namespace tilegrad::cpu {
namespace {

constexpr int64_t kBlock = 8192;               // elements a task
constexpr double kNanosecondsAnElement = 0.3;  // bound by memory

}  // namespace

template <class T>
void mse_loss(Context& context, T* loss, T* dinput, T* dtarget, const T* grad_output,
              const T* input, const T* target, const T* weight, int64_t n, Reduction reduction) {
  const auto& kernel = kernels<LossKernels<T>>();
  const bool one_number = reduction != Reduction::none;
  double denominator = 1;
  if (reduction == Reduction::mean) {
    denominator = weight == nullptr ? static_cast<double>(n) : sum_all(context, weight, n);
  }
  double scale = 1 / denominator;
  if (one_number && grad_output != nullptr) scale = *grad_output / denominator;

  const int64_t blocks = (n + kBlock - 1) / kBlock;
  const double time = static_cast<double>(n) * kNanosecondsAnElement;
  WorkspaceScope scope(context);
  double* sums = context.workspace->take<double>(blocks);
  const auto at = [](auto* p, int64_t i) { return p == nullptr ? nullptr : p + i; };
  parallel_for(context, blocks, time, [&](int64_t block, int) {
    const int64_t i = block * kBlock;
    sums[block] = kernel.mse({one_number ? nullptr : at(loss, i), at(dinput, i), at(dtarget, i),
                              one_number ? nullptr : at(grad_output, i), static_cast<T>(scale),
                              input + i, target + i, at(weight, i), std::min(kBlock, n - i)});
  });
  if (!one_number || loss == nullptr) return;
  double total = 0;
  for (int64_t block = 0; block < blocks; ++block) total += sums[block];
  *loss = static_cast<T>(total / denominator);
}

template void mse_loss(Context&, float*, float*, float*, const float*, const float*, const float*,
                       const float*, int64_t, Reduction);
template void mse_loss(Context&, double*, double*, double*, const double*, const double*,
                       const double*, const double*, int64_t, Reduction);

}  // namespace tilegrad::cpu
