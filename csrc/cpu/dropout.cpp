// SPDX-License-Identifier: MIT
// Dropout: cuts the run into pieces of whole counters for the threads; the kernel is in simd/.
#include "simd/dropout.hpp"

#include <algorithm>

#include "../ops.hpp"
#include "isa.hpp"
#include "parallel.hpp"

namespace tilegrad::cpu {
namespace {

constexpr int64_t kGrain = 8192;  // elements a task
static_assert(kGrain % 4 == 0, "a task starts at the first word of a counter");
constexpr double kNanosecondsAnElement = 0.6;

}  // namespace

template <class T>
void dropout(Context& context, T* y, const T* x, int64_t n, double p, uint64_t offset,
             const StepState* state) {
  const auto& kernel = kernels<DropoutKernels<T>>();
  const DropoutRule<T> rule = dropout_rule<T>(p);
  const uint64_t seed = state->seed;
  const uint64_t first = state->offset + offset;
  parallel_ranges(context, n, kGrain, static_cast<double>(n) * kNanosecondsAnElement,
                  [&](int64_t begin, int64_t end, int) {
                    kernel.dropout(y + begin, x + begin, end - begin, rule, seed,
                                   first + static_cast<uint64_t>(begin / 4));
                  });
}

template <class T>
void dropout_rows(Context& context, T* y, const T* x, int64_t rows, int64_t size, int64_t first,
                  int64_t step, double p, uint64_t offset, const StepState* state) {
  const auto& kernel = kernels<DropoutKernels<T>>();
  const DropoutRule<T> rule = dropout_rule<T>(p);
  const uint64_t seed = state->seed;
  const uint64_t start = state->offset + offset;
  const int64_t grain = std::max<int64_t>(kGrain / std::max<int64_t>(size, 1), 1);
  const auto one_row = [&](int64_t row) {
    const int64_t at = (first + row * step) * size;  // of the row's first element in the whole
    uint64_t counter = start + static_cast<uint64_t>(at / 4);
    const T* from = x + row * size;
    T* to = y + row * size;
    int64_t done = 0;
    if (at % 4 != 0) {  // the kernel starts at the first word of a counter
      const PhiloxWords words = philox(seed, counter++);
      for (int64_t word = at % 4; word < 4 && done < size; ++word, ++done) {
        to[done] = from[done] * (words.word[word] >= rule.threshold ? rule.scale : T(0));
      }
    }
    kernel.dropout(to + done, from + done, size - done, rule, seed, counter);
  };
  parallel_ranges(context, rows, grain, static_cast<double>(rows * size) * kNanosecondsAnElement,
                  [&](int64_t begin, int64_t end, int) {
                    for (int64_t row = begin; row < end; ++row) one_row(row);
                  });
}

template void dropout(Context&, float*, const float*, int64_t, double, uint64_t, const StepState*);
template void dropout(Context&, double*, const double*, int64_t, double, uint64_t,
                      const StepState*);
template void dropout_rows(Context&, float*, const float*, int64_t, int64_t, int64_t, int64_t,
                           double, uint64_t, const StepState*);
template void dropout_rows(Context&, double*, const double*, int64_t, int64_t, int64_t, int64_t,
                           double, uint64_t, const StepState*);

}  // namespace tilegrad::cpu
