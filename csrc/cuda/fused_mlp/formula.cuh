// SPDX-License-Identifier: MIT
// f and f' of 64 rows in registers: one switch a layer, the formula unrolled behind it.
#pragma once

#include <type_traits>

#include "tile.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// Formulas of a few instructions: they may stand in the code once for every register.
template <class F>
inline constexpr bool kIsBrief = std::is_same_v<F, LeakyRelu> || std::is_same_v<F, Hardtanh> ||
                                 std::is_same_v<F, Hardsigmoid> || std::is_same_v<F, Hardswish>;

// A longer one stands there for so many; rotation then costs six moves an element at most.
inline constexpr int kMlpStep = 8;

template <class T>
__device__ inline float low_of(uint32_t pair) {
  return widen(T{static_cast<uint16_t>(pair & 0xffffu)});
}
template <class T>
__device__ inline float high_of(uint32_t pair) {
  return widen(T{static_cast<uint16_t>(pair >> 16)});
}

// Two numbers as a pair, 0 for what is below it.
template <class T>
__device__ inline uint32_t narrow_pair_relu(float low, float high) {
  return std::is_same_v<T, bfloat16> ? floats_to_bfloats_relu(low, high)
                                     : floats_to_halves_relu(low, high);
}

template <class T, int kPairs>
__device__ inline void pack_pairs(uint32_t (&pair)[kPairs], const float (&d)[2 * kPairs]) {
#pragma unroll
  for (int p = 0; p < kPairs; ++p) pair[p] = narrow_pair<T>(d[2 * p], d[2 * p + 1]);
}

// a = f(d), rounded.
template <class T, int kPairs>
__device__ inline void finish(uint32_t (&a)[kPairs], float (&d)[2 * kPairs],
                              const Activation& activation) {
  if (activation.kind == ActivationKind::relu) {
#pragma unroll
    for (int p = 0; p < kPairs; ++p) a[p] = narrow_pair_relu<T>(d[2 * p], d[2 * p + 1]);
    return;
  }
  with_formula(activation, [&](const auto& f) {
    constexpr int kStep = kIsBrief<std::decay_t<decltype(f)>> ? 2 * kPairs : kMlpStep;
#pragma unroll 1
    for (int turn = 0; turn < 2 * kPairs / kStep; ++turn) {
#pragma unroll
      for (int e = 0; e < kStep; ++e) d[e] = f.value(d[e]);
      rotate<kStep>(d);
    }
  });
  pack_pairs<T>(a, d);
}

// g = d f', rounded, f' from y = f where the formula can, else from its argument. A hardtanh whose
// bounds 16 bits round has its argument here too (mlp_slopes), of which its two formulas say the
// same.
template <class T>
__device__ inline void multiply_by_slope(uint32_t (&g)[16], float (&d)[32], uint32_t (&saved)[16],
                                         const Activation& activation) {
  with_formula(activation, [&](const auto& f) {
    constexpr bool kFromOutput = requires(float v) { f.from_output(v, v); };
    constexpr int kStep = kFromOutput || kIsBrief<std::decay_t<decltype(f)>> ? 32 : kMlpStep;
#pragma unroll 1
    for (int turn = 0; turn < 32 / kStep; ++turn) {
#pragma unroll
      for (int e = 0; e < kStep; ++e) {
        const float s = e % 2 == 0 ? low_of<T>(saved[e / 2]) : high_of<T>(saved[e / 2]);
        if constexpr (kFromOutput) {
          d[e] = f.from_output(d[e], s);
        } else {
          d[e] = f.from_input(d[e], s);
        }
      }
      rotate<kStep>(d);
      rotate<kStep / 2>(saved);
    }
  });
  pack_pairs<T>(g, d);
}

}  // namespace tilegrad::TILEGRAD_BACKEND
