// SPDX-License-Identifier: MIT
// bfloat16 is the upper half of a float32: widening is exact, rounding goes to the nearest, ties to
// even.
#pragma once

#include <bit>
#include <cstdint>

#include "../context.hpp"

namespace tilegrad::cpu {

inline float widened(bfloat16 x) { return std::bit_cast<float>(uint32_t{x.bits} << 16); }

// NaN stays NaN: its quiet bit is set, because cutting could leave a payload of zeros, infinity.
inline bfloat16 rounded(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if (x != x) return {static_cast<uint16_t>(bits >> 16 | 0x40)};
  return {static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)};
}

}  // namespace tilegrad::cpu
