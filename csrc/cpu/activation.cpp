// SPDX-License-Identifier: MIT
// Elementwise activations: cuts the run into pieces for the threads; the kernels are in simd/.
#include "simd/activation.hpp"

#include "isa.hpp"
#include "parallel.hpp"

namespace tilegrad::cpu {
namespace {

constexpr int64_t kGrain = 16384;  // elements a task

// Bound by memory, or by an exp: vectorised for float, from libm for double.
template <class T>
double nanoseconds(int64_t n, Activation f) {
  const bool linear = f.kind == ActivationKind::identity || f.kind == ActivationKind::relu ||
                      f.kind == ActivationKind::leaky_relu;
  const double one = linear ? 0.03 * sizeof(T) : sizeof(T) == sizeof(double) ? 8 : 0.4;
  return one * static_cast<double>(n);
}

}  // namespace

template <class T>
void activation(Context& context, T* y, const T* x, int64_t n, Activation f) {
  const auto& kernel = kernels<ActivationKernels<T>>();
  parallel_ranges(context, n, kGrain, nanoseconds<T>(n, f), [&](int64_t begin, int64_t end, int) {
    kernel.forward(y + begin, x + begin, end - begin, f);
  });
}

template <class T>
void activation_backward(Context& context, T* dx, const T* dy, const T* saved, bool saved_is_output,
                         int64_t n, Activation f) {
  const auto& kernel = kernels<ActivationKernels<T>>();
  parallel_ranges(context, n, kGrain, nanoseconds<T>(n, f), [&](int64_t begin, int64_t end, int) {
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
