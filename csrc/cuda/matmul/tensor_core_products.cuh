// SPDX-License-Identifier: MIT
// How a warp of rung 9 and of rung tf32x3 multiplies fragments: OneProduct or ThreeProducts. Each
// prepares what was read from shared memory and adds a row of mma.
// kSteps: how many of a slice's two steps of k are unrolled; kBlocks share a multiprocessor.
#pragma once

#include <type_traits>

#include "../numeric.cuh"
#include "../ptx/mma.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

template <class T>
__device__ inline void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    mma_m16n8k16_bf16(d, a, b);
  } else if constexpr (std::is_same_v<T, float16>) {
    mma_m16n8k16_f16(d, a, b);
  } else {
    mma_m16n8k8_tf32(d, a, b);
  }
}

// 16-bit elements as they are; float rounded to tf32.
template <class T>
struct OneProduct {
  // But for tf32, whose fragments take more registers.
  static constexpr int kBlocks = sizeof(T) == 2 ? 2 : 1;
  static constexpr int kSteps = 2;
  struct Fragment {
    uint32_t bits[4];
  };

  __device__ static void prepare(Fragment& fragment) {
    if constexpr (sizeof(T) == 4) {
#pragma unroll
      for (int i = 0; i < 4; ++i) fragment.bits[i] = float_to_tf32(fragment.bits[i]);
    }
  }

  // sum[j] += left right[j]; a fragment of b holds two neighbouring j.
  template <int kCols>
  __device__ static void add(float (&sum)[kCols][4], const Fragment& left,
                             const Fragment (&right)[kCols / 2]) {
#pragma unroll
    for (int j = 0; j < kCols; ++j) {
      const uint32_t* const b = &right[j / 2].bits[j % 2 * 2];
      const uint32_t pair[2] = {b[0], b[1]};
      mma<T>(sum[j], left.bits, pair);
    }
  }
};

// x = big + small + rest of two tf32, |rest| <= 2^-23 |x|. big is x rounded to nearest, but the
// largest finite tf32 where that is an infinity. An infinite x is small's, beside a big of one:
// then each of the three products has the sign that x has in float32, and none is 0 times infinity.
// A NaN is small's too.
__device__ inline void split_tf32(uint32_t x, uint32_t& big, uint32_t& small) {
  constexpr uint32_t kInfinity = 0x7f800000u, kLargest = 0x7f7fe000u, kOne = 0x3f800000u;
  const uint32_t sign = x & 0x80000000u, magnitude = x ^ sign;
  const uint32_t rounded = (magnitude + 0x1000u) & 0xffffe000u;
  const uint32_t finite = rounded < kLargest ? rounded : kLargest;
  big = sign | (magnitude == kInfinity ? kOne : finite);
  // The difference is exact: what was rounded away is 13 bits.
  small = float_to_tf32(float_to_bits(bits_to_float(x) - bits_to_float(big)));
}

// float as two tf32: small big + big small + big big, small numbers first. The tensor cores cut off
// what does not fit in their sums, so each step of k starts there from zero and is added in float,
// rounded to nearest.
struct ThreeProducts {
  static constexpr int kBlocks = 1;
  static constexpr int kSteps = 1;
  struct Fragment {
    uint32_t bits[4];  // from shared memory, then the big parts
    uint32_t small[4];
  };

  __device__ static void prepare(Fragment& fragment) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      split_tf32(fragment.bits[i], fragment.bits[i], fragment.small[i]);
    }
  }

  template <int kCols>
  __device__ static void add(float (&sum)[kCols][4], const Fragment& left,
                             const Fragment (&right)[kCols / 2]) {
    float step[kCols][4] = {};
    const auto add_parts = [&](const uint32_t (&a)[4], auto part) {
#pragma unroll
      for (int j = 0; j < kCols; ++j) {
        const uint32_t* const b = &(right[j / 2].*part)[j % 2 * 2];
        const uint32_t pair[2] = {b[0], b[1]};
        mma_m16n8k8_tf32(step[j], a, pair);
      }
    };
    add_parts(left.small, &Fragment::bits);
    add_parts(left.bits, &Fragment::small);
    add_parts(left.bits, &Fragment::bits);
#pragma unroll
    for (int j = 0; j < kCols; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sum[j][e] += step[j][e];
    }
  }
};

}  // namespace tilegrad::TILEGRAD_BACKEND
