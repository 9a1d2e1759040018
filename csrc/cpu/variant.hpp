// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>

#include "../check.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

// Ladders of kernels are the GPU's; on the CPU the instruction set chooses.
inline void check_no_variant(const char* op, std::string_view variant) {
  check(variant.empty(), "{}: the cpu has no variants (cuda and sim have); got '{}'", op, variant);
}

}  // namespace tilegrad::TILEGRAD_BACKEND
