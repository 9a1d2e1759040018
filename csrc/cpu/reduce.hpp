// SPDX-License-Identifier: MIT
// The sum of an array in double, for ops that reduce to one number.
#pragma once

#include <cstdint>

#include "../context.hpp"

namespace tilegrad::cpu {

// In an order that depends on n and the ISA only.
template <class T>
double sum_all(Context& context, const T* x, int64_t n);

}  // namespace tilegrad::cpu
