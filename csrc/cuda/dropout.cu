// SPDX-License-Identifier: MIT
// Math:        y_i = x_i m_i, m_i = 1/(1-p) where word_i >= round(p 2^32), else 0 (as torch: a
//              dropped NaN or inf is NaN). word_i is word i mod 4 of Philox counter c + i/4.
// Shapes:      flat runs of n elements.
// Parallelism: a packet of 16 bytes a thread, grid-stride, four on their way. Four floats use up
//              one counter; of two doubles each draws it again: cheaper than a split access.
// Memory:      coalesced (an unaligned sector: up to 4 requests); one element read, one written.
//              The mask is never stored: the backward pass draws it again.
// Source:      Salmon et al. (SC11); see philox.hpp.
#include "../ops.hpp"
#include "../philox.hpp"
#include "vector_io.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kThreads = 256;
constexpr int kWords = 4;  // that a counter gives

template <class T>
__global__ void __launch_bounds__(kThreads)
    dropout_kernel(T* y, const T* x, int64_t n, bool aligned, DropoutRule<T> rule, uint64_t offset,
                   const StepState* state) {
  grid_dependency_wait();
  static_assert(kWords % kPacket<T> == 0, "a packet lies within a counter");
  const uint64_t seed = state->seed;
  const uint64_t counter = state->offset + offset;
  const auto store = [&](Slot<T> slot, Packet<T> packet) {
    const PhiloxWords words = philox(seed, counter + static_cast<uint64_t>(slot.index(0) / kWords));
    const bool upper = slot.index(0) % kWords != 0;
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) {
      const uint32_t word = upper ? words.word[(j + kPacket<T>) % kWords] : words.word[j];
      packet.at[j] *= word >= rule.threshold ? rule.scale : T(0);
    }
    slot.store(y, packet);
  };
  for_packets<T, 4, true>(grid_thread(), grid_threads(), n, aligned, store, x);
}

// An element a thread, which draws the counter of its own word: rows of the whole start anywhere
// in a counter.
template <class T>
__global__ void __launch_bounds__(kThreads)
    dropout_rows_kernel(T* y, const T* x, int64_t n, int64_t size, int64_t first, int64_t step,
                        DropoutRule<T> rule, uint64_t offset, const StepState* state) {
  grid_dependency_wait();
  const uint64_t seed = state->seed;
  const uint64_t counter = state->offset + offset;
  for (int64_t i = grid_thread(); i < n; i += grid_threads()) {
    const int64_t row = i / size;
    const int64_t at = (first + row * step) * size + (i - row * size);  // in the whole
    const PhiloxWords words = philox(seed, counter + static_cast<uint64_t>(at / kWords));
    const bool upper = at % kWords >= 2;
    const bool odd = at % 2 != 0;
    const uint32_t even_word = upper ? words.word[2] : words.word[0];
    const uint32_t odd_word = upper ? words.word[3] : words.word[1];
    const uint32_t word = odd ? odd_word : even_word;
    y[i] = x[i] * (word >= rule.threshold ? rule.scale : T(0));
  }
}

}  // namespace

template <class T>
void dropout(Context& context, T* y, const T* x, int64_t n, double p, uint64_t offset,
             const StepState* state) {
  launch_next(dropout_kernel<T>, packet_blocks<dropout_kernel<T>, T>(n, kThreads), kThreads, 0,
              context, y, x, n, packet_aligned(y, x), dropout_rule<T>(p), offset, state);
}

template <class T>
void dropout_rows(Context& context, T* y, const T* x, int64_t rows, int64_t size, int64_t first,
                  int64_t step, double p, uint64_t offset, const StepState* state) {
  const int64_t n = rows * size;
  launch_next(dropout_rows_kernel<T>, blocks_for(n, kThreads), kThreads, 0, context, y, x, n, size,
              first, step, dropout_rule<T>(p), offset, state);
}

template void dropout(Context&, float*, const float*, int64_t, double, uint64_t, const StepState*);
template void dropout(Context&, double*, const double*, int64_t, double, uint64_t,
                      const StepState*);
template void dropout_rows(Context&, float*, const float*, int64_t, int64_t, int64_t, int64_t,
                           double, uint64_t, const StepState*);
template void dropout_rows(Context&, double*, const double*, int64_t, int64_t, int64_t, int64_t,
                           double, uint64_t, const StepState*);

}  // namespace tilegrad::TILEGRAD_BACKEND
