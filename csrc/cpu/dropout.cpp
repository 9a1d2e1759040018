// SPDX-License-Identifier: MIT
// Dropout: cuts the run into pieces of whole counters for the threads; the kernel is in simd/.
#include "simd/dropout.hpp"

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

template void dropout(Context&, float*, const float*, int64_t, double, uint64_t, const StepState*);
template void dropout(Context&, double*, const double*, int64_t, double, uint64_t,
                      const StepState*);

}  // namespace tilegrad::cpu
