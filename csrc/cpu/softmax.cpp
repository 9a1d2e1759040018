// SPDX-License-Identifier: MIT
// softmax, log_softmax and their backward passes: chunks of rows for the threads; the kernels are
// in simd/.
#include "simd/softmax.hpp"

#include "../ops.hpp"
#include "class_chunks.hpp"
#include "isa.hpp"

namespace tilegrad::cpu {
namespace {

constexpr double kNanosecondsAnElement = 0.5;  // an exponential and three passes in cache

template <class T>
int64_t size_of(ClassShape shape) {
  return shape.outer * shape.classes * shape.inner * static_cast<int64_t>(sizeof(T));
}

}  // namespace

template <class T>
void softmax(Context& context, T* y, const T* x, ClassShape shape, bool log) {
  const auto& kernel = kernels<SoftmaxKernels<T>>();
  const int64_t result = y == x ? 0 : size_of<T>(shape);
  for_class_chunks(context, shape, kNanosecondsAnElement, result, [&](const ClassChunk& chunk) {
    kernel.forward(y + chunk.offset, x + chunk.offset, chunk.rows, log, chunk.scratch);
  });
}

template <class T>
void softmax_backward(Context& context, T* dx, const T* dy, const T* y, ClassShape shape,
                      bool log) {
  const auto& kernel = kernels<SoftmaxKernels<T>>();
  const int64_t result = dx == dy || dx == y ? 0 : size_of<T>(shape);
  for_class_chunks(context, shape, kNanosecondsAnElement, result, [&](const ClassChunk& chunk) {
    kernel.backward(dx + chunk.offset, dy + chunk.offset, y + chunk.offset, chunk.rows, log);
  });
}

template void softmax(Context&, float*, const float*, ClassShape, bool);
template void softmax(Context&, double*, const double*, ClassShape, bool);
template void softmax_backward(Context&, float*, const float*, const float*, ClassShape, bool);
template void softmax_backward(Context&, double*, const double*, const double*, ClassShape, bool);

}  // namespace tilegrad::cpu
