// SPDX-License-Identifier: MIT
// Math: words[q,l] = (source[l,2q], source[l,2q+1]): pairs of neighbours along k as words of 32
//   bits. Their halves above and below 16 zeros are two float32; AMX multiplies the words.
// Shapes: lanes beyond the matrix and a last odd step are zero.
// Parallelism: along k a vector is loaded as words and transposed in registers; across k two rows
//   are interleaved.
// Memory: one read of 2 bytes an element, one write of 2 or 4.
#pragma once

#include "halves.hpp"
#include "matmul_pack.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {

constexpr int kLanes = Vec<float>::kSize;

// Words of one lane, 2 * kSize steps of k, from `steps` elements; zero beyond.
TILEGRAD_INLINE Vec<float> load_words(const bfloat16* x, int64_t steps) {
  Words words = {};
  if (steps >= 2 * kLanes) {
    __builtin_memcpy(&words, x, sizeof(Words));
  } else if (steps > 0) {
    __builtin_memcpy(&words, x, static_cast<size_t>(steps) * sizeof(bfloat16));
  }
  return as_float(words);
}

// Words of kSize lanes, two steps of k; a null `odd` counts as zeros.
TILEGRAD_INLINE Words interleaved(const bfloat16* even, const bfloat16* odd, int64_t lanes) {
  if (lanes >= kLanes) {
    const Words low = zero_extended(load_halves(even));
    return odd == nullptr ? low : low | zero_extended(load_halves(odd)) << 16;
  }
  const Words low = zero_extended(load_halves(even, lanes));
  return odd == nullptr ? low : low | zero_extended(load_halves(odd, lanes)) << 16;
}

// put(l, q, words): lanes [l, l + kSize) of pair q, for l < width and 2 q < k.
template <class Put>
TILEGRAD_INLINE void words_along_k(const bfloat16* source, int64_t lane_stride, int64_t lanes,
                                   int64_t width, int64_t k, Put put) {
  for (int64_t l = 0; l < width; l += kLanes) {
    for (int64_t p = 0; p < k; p += 2 * kLanes) {
      Vec<float> rows[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        rows[i] = l + i < lanes ? load_words(source + (l + i) * lane_stride + p, k - p)
                                : Vec<float>(0.0f);
      }
      transpose_round<1>(rows);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        if (p + 2 * i < k) put(l, p / 2 + i, (Words)rows[i].to_bits());
      }
    }
  }
}

// The same of any strides; fast where lanes are contiguous.
template <class Put>
TILEGRAD_INLINE void words_across_k(const bfloat16* source, int64_t lane_stride, int64_t step,
                                    int64_t lanes, int64_t width, int64_t k, Put put) {
  for (int64_t p = 0; p < k; p += 2) {
    const bool both = p + 1 < k;
    for (int64_t l = 0; l < width; l += kLanes) {
      const int64_t left = lanes - l;
      const bfloat16* from = source + p * step + l * lane_stride;
      Words words = {};
      if (left > 0 && lane_stride == 1) {
        words = interleaved(from, both ? from + step : nullptr, left);
      } else {
        for (int i = 0; i < kLanes && i < left; ++i) {
          const bfloat16* one = from + i * lane_stride;
          words[i] = uint32_t{one[0].bits} | (both ? uint32_t{one[step].bits} << 16 : 0u);
        }
      }
      put(l, p / 2, words);
    }
  }
}

template <class Put>
TILEGRAD_INLINE void pack_words(const bfloat16* source, int64_t lane_stride, int64_t step,
                                int64_t lanes, int64_t width, int64_t k, Put put) {
  if (step == 1 && k > 1) {
    words_along_k(source, lane_stride, lanes, width, k, put);
  } else {
    words_across_k(source, lane_stride, step, lanes, width, k, put);
  }
}

inline void widen(float* y, const bfloat16* x, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) widened(load_halves(x + i)).store(y + i);
  if (i < n) widened(load_halves(x + i, n - i)).store_partial(y + i, static_cast<int>(n - i));
}

inline void narrow(bfloat16* y, const float* x, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    store_halves(y + i, kLanes, narrowed(Vec<float>::load(x + i)));
  }
  if (i < n) {
    const auto last = Vec<float>::load_partial(x + i, static_cast<int>(n - i));
    store_halves(y + i, n - i, narrowed(last));
  }
}

inline void scale(float* sum, const float* c, float alpha, float beta, int64_t n) {
  using V = Vec<float>;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const V product = V(alpha) * V::load(sum + i);
    (c == nullptr ? product : fma(V(beta), V::load(c + i), product)).store(sum + i);
  }
  if (i < n) {
    const int left = static_cast<int>(n - i);
    const V product = V(alpha) * V::load_partial(sum + i, left);
    (c == nullptr ? product : fma(V(beta), V::load_partial(c + i, left), product))
        .store_partial(sum + i, left);
  }
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
