// SPDX-License-Identifier: MIT
// Elementwise activations: cuts the run into pieces for the threads; the kernels are in simd/.
#include "simd/activation.hpp"

#include "isa.hpp"
#include "parallel.hpp"

namespace tilegrad::cpu {
namespace {

constexpr int64_t kGrain = 16384;              // elements a task
constexpr double kNanosecondsAnElement = 0.2;  // relu is bound by memory, the others by exp

}  // namespace

template <class T>
void activation(Context& context, T* y, const T* x, int64_t n, Activation f) {
  const auto& kernel = kernels<ActivationKernels<T>>();
  parallel_ranges(context, n, kGrain, n * kNanosecondsAnElement,
                  [&](int64_t begin, int64_t end, int) {
                    kernel.forward(y + begin, x + begin, end - begin, f);
                  });
}

template <class T>
void activation_backward(Context& context, T* dx, const T* dy, const T* saved, bool saved_is_output,
                         int64_t n, Activation f) {
  const auto& kernel = kernels<ActivationKernels<T>>();
  parallel_ranges(
      context, n, kGrain, n * kNanosecondsAnElement, [&](int64_t begin, int64_t end, int) {
        kernel.backward(dx + begin, dy + begin, saved + begin, saved_is_output, end - begin, f);
      });
}

template void activation(Context&, float*, const float*, int64_t, Activation);
template void activation(Context&, double*, const double*, int64_t, Activation);
template void activation_backward(Context&, float*, const float*, const float*, bool, int64_t,
                                  Activation);
template void activation_backward(Context&, double*, const double*, const double*, bool, int64_t,
                                  Activation);

}  // namespace tilegrad::cpu
