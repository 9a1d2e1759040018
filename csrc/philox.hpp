// SPDX-License-Identifier: MIT
// Philox4x32-10: a counter-based random generator, the same words on every backend.
//
// Math:   ten rounds on a counter c of four 32-bit words under a key k of two; a round is
//         (h0, l0) = M0 c0;  (h1, l1) = M1 c2;  c = (h1 ^ c1 ^ k0, l1, h0 ^ c3 ^ k1, l0)
//         and k += W between rounds. Any counter gives its words without those before it, so
//         element i of an array needs only i, and threads share nothing.
// Source: Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC11), 4.2;
//         constants as in Random123, whose known-answer vectors hold.
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

inline constexpr int kPhiloxRounds = 10;
inline constexpr uint32_t kPhiloxM0 = 0xD2511F53u;
inline constexpr uint32_t kPhiloxM1 = 0xCD9E8D57u;
inline constexpr uint32_t kPhiloxW0 = 0x9E3779B9u;  // golden ratio
inline constexpr uint32_t kPhiloxW1 = 0xBB67AE85u;  // sqrt(3) - 1

struct PhiloxWords {
  uint32_t word[4];
};

TILEGRAD_HOST_DEVICE inline PhiloxWords philox(PhiloxWords c, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t p0 = uint64_t{kPhiloxM0} * c.word[0];
    const uint64_t p1 = uint64_t{kPhiloxM1} * c.word[2];
    c = {{static_cast<uint32_t>(p1 >> 32) ^ c.word[1] ^ k0, static_cast<uint32_t>(p1),
          static_cast<uint32_t>(p0 >> 32) ^ c.word[3] ^ k1, static_cast<uint32_t>(p0)}};
    k0 += kPhiloxW0;
    k1 += kPhiloxW1;
  }
  return c;
}

// The words of counter (low, high, 0, 0) under the key `seed`: how the project numbers its draws.
TILEGRAD_HOST_DEVICE inline PhiloxWords philox(uint64_t seed, uint64_t counter) {
  return philox({{static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0}},
                static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}

// What dropout multiplies by: `scale` where word >= threshold, else 0.
template <class T>
struct DropoutRule {
  uint32_t threshold;
  T scale;
};

// The threshold is round(p 2^32), ties to even as Python's round; the scale is 1/(1-p) in double,
// then rounded to T. p = 1 would need the threshold 2^32: a scale of 0 says the same in 32 bits.
template <class T>
inline DropoutRule<T> dropout_rule(double p) {
  const double threshold = std::nearbyint(p * 0x1p32);
  if (threshold >= 0x1p32) return {0, T(0)};
  return {static_cast<uint32_t>(threshold), static_cast<T>(1 / (1 - p))};
}

}  // namespace tilegrad::TILEGRAD_BACKEND
