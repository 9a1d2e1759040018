// SPDX-License-Identifier: MIT
// The dropout kernel that every ISA supplies; integer arithmetic, so all give the same mask.
#pragma once

#include <cstdint>

#include "../../philox.hpp"

namespace tilegrad::cpu {

template <class T>
struct DropoutKernels {
  // y = x * (rule.scale where kept, else 0); `counter` belongs to the first four elements.
  void (*dropout)(T* y, const T* x, int64_t n, DropoutRule<T> rule, uint64_t seed,
                  uint64_t counter);
};

}  // namespace tilegrad::cpu
