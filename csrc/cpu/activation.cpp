// SPDX-License-Identifier: MIT
// Elementwise activations: cuts the run into pieces for the threads; the kernels are in simd/.
#include "simd/activation.hpp"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "isa.hpp"
#include "parallel.hpp"

namespace tilegrad::cpu {
namespace {

// From here on the result, which no cache would keep, goes past the caches: a plain store reads
// each line before it is written. Below, whoever reads the result next gains more from finding it
// there.
constexpr int64_t kStreamBytes = int64_t{1} << 26;  // of operands and result
constexpr int64_t kStreamBlock = 4096;              // bytes computed in the L1 cache at a time
constexpr int64_t kLine = 64;

// Bound by memory, by an exp in vectors, or by an erfc from libm.
template <class T>
double nanoseconds(int64_t n, Activation f) {
  const bool linear = f.kind == ActivationKind::identity || f.kind == ActivationKind::relu ||
                      f.kind == ActivationKind::leaky_relu || f.kind == ActivationKind::hardtanh ||
                      f.kind == ActivationKind::relu6 || f.kind == ActivationKind::hardsigmoid ||
                      f.kind == ActivationKind::hardswish;
  const double smooth = sizeof(T) == sizeof(float) ? 0.3 : f.kind == ActivationKind::gelu ? 12 : 2;
  return (linear ? 0.03 * sizeof(T) : smooth) * static_cast<double>(n);
}

// Elements a task: a few tasks for each thread, in whole lines. An element's result does not depend
// on where a run is cut.
int64_t grain(const Context& context, int64_t n) {
  const int64_t even = n / (4 * thread_limit(context)) + 1;
  return std::clamp<int64_t>((even + 1023) / 1024 * 1024, 4096, 65536);
}

// compute(result, begin, count) over pieces of y, which is none of the operands where `separate`.
template <class T, class F>
void for_pieces(Context& context, T* y, int64_t n, bool separate, int operands, Activation f,
                F compute) {
  const auto& kernel = kernels<ActivationKernels<T>>();
  const bool stream = separate && (operands + 1) * n * int64_t{sizeof(T)} >= kStreamBytes;
  parallel_ranges(context, n, grain(context, n), nanoseconds<T>(n, f),
                  [&](int64_t begin, int64_t end, int) {
                    if (!stream) return compute(y + begin, begin, end - begin);
                    const int64_t past = reinterpret_cast<uintptr_t>(y + begin) % kLine;
                    const int64_t head =
                        std::min<int64_t>(past == 0 ? 0 : (kLine - past) / sizeof(T), end - begin);
                    compute(y + begin, begin, head);
                    alignas(kLine) T block[kStreamBlock / sizeof(T)];
                    for (int64_t i = begin + head; i < end; i += std::size(block)) {
                      const int64_t count = std::min<int64_t>(std::size(block), end - i);
                      compute(block, i, count);
                      kernel.stream(y + i, block, count);
                    }
                    kernel.stream(nullptr, nullptr, 0);
                  });
}

}  // namespace

template <class T>
void activation(Context& context, T* y, const T* x, int64_t n, Activation f) {
  const auto& kernel = kernels<ActivationKernels<T>>();
  for_pieces(context, y, n, y != x, 1, f, [&](T* result, int64_t begin, int64_t count) {
    kernel.forward(result, x + begin, count, f);
  });
}

template <class T>
void activation_backward(Context& context, T* dx, const T* dy, const T* saved, bool saved_is_output,
                         int64_t n, Activation f) {
  const auto& kernel = kernels<ActivationKernels<T>>();
  for_pieces(context, dx, n, dx != dy && dx != saved, 2, f,
             [&](T* result, int64_t begin, int64_t count) {
               kernel.backward(result, dy + begin, saved + begin, saved_is_output, count, f);
             });
}

template void activation(Context&, float*, const float*, int64_t, Activation);
template void activation(Context&, double*, const double*, int64_t, Activation);
template void activation_backward(Context&, float*, const float*, const float*, bool, int64_t,
                                  Activation);
template void activation_backward(Context&, double*, const double*, const double*, bool, int64_t,
                                  Activation);

}  // namespace tilegrad::cpu
