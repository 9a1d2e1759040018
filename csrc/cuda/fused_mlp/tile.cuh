// SPDX-License-Identifier: MIT
// What the kernels of fused_mlp share: weights in shared memory, rows in registers.
//
// A warpgroup holds 64 rows of kWidth columns as pairs of 16-bit elements, as wgmma takes its
// operand a: pair 2 j + r of a thread is columns 8 j + 2 t and the next of row 16 w + g + 8 r.
// In global memory a thread has kRun neighbours of each 4 kRun columns of a row, so that it moves
// 16 bytes at a time: column c of a matrix outside is column fragment_column(c) in registers. The
// weights that meet it are stored to fit: the first layer's columns, the last layer's rows.
#pragma once

#include "../activations.cuh"
#include "../fused_mlp_choice.hpp"
#include "../launch.cuh"
#include "../matmul/epilogue.cuh"
#include "../ptx/fence.cuh"
#include "../ptx/opaque.cuh"
#include "../ptx/pack.cuh"
#include "../ptx/store.cuh"
#include "../ptx/tensor_map.cuh"
#include "../ptx/wgmma_registers.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

template <int kWidth>
struct MlpTile {
  static constexpr int kRun = kWidth < 32 ? kWidth / 4 : 8;     // neighbours outside
  static constexpr int kSlab = kWidth * 128;                    // bytes: 64 columns of a weight
  static constexpr int kWeight = kSlab * ((kWidth + 63) / 64);  // bytes
  static constexpr int kChunks = kWidth < 64 ? kWidth / 8 : 8;  // of 16 bytes in a row of a slab
};

template <int kWidth>
__device__ constexpr int fragment_column(int c) {
  constexpr int kRun = MlpTile<kWidth>::kRun;
  const int in = c % (4 * kRun);
  return c - in + in % kRun / 2 * 8 + in / kRun * 2 + in % 2;
}
// Its inverse.
template <int kWidth>
__device__ constexpr int outer_column(int c) {
  constexpr int kRun = MlpTile<kWidth>::kRun;
  const int in = c % (4 * kRun);
  return c - in + in % 8 / 2 * kRun + in / 8 * 2 + in % 2;
}

// The thread's first row of the warpgroup's 64, and 8 further its second one.
__device__ inline int fragment_row() {
  const int tid = static_cast<int>(threadIdx.x) % 128;
  return tid / 32 * 16 + tid % 32 / 4;
}

template <class T>
struct MlpProblem {
  T* y;        // or dx, which may be null
  const T* x;  // (rows, features[0])
  const T* dy;
  MlpArrays<const T> parameters;
  MlpShape shape;
};

// Whether a row of so many elements may be moved kRun at a time.
template <int kWidth, class T>
__device__ inline bool moves_whole(const T* p, int64_t features) {
  constexpr int kRun = MlpTile<kWidth>::kRun;
  return reinterpret_cast<uintptr_t>(p) % (kRun * sizeof(T)) == 0 && features % kRun == 0;
}

// kCount elements from p on, of which `left` exist, as pairs; what does not exist is 0.
template <int kCount, class T>
__device__ inline void load_pairs(uint32_t (&pair)[kCount / 2], const T* p, int64_t left,
                                  bool whole) {
  if (whole && left >= kCount) {
    if constexpr (kCount == 8) {
      const uint4 bits = *reinterpret_cast<const uint4*>(p);
      pair[0] = bits.x, pair[1] = bits.y, pair[2] = bits.z, pair[3] = bits.w;
    } else {
      const uint2 bits = *reinterpret_cast<const uint2*>(p);
      pair[0] = bits.x, pair[1] = bits.y;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kCount / 2; ++i) {
    const uint32_t low = 2 * i < left ? p[2 * i].bits : 0u;
    const uint32_t high = 2 * i + 1 < left ? p[2 * i + 1].bits : 0u;
    pair[i] = low | high << 16;
  }
}

// Calls move(offset, left, pair) for each of the thread's runs in a (rows, features) matrix, 64
// rows from `first` on: `left` of its elements exist, in the pairs pair(q).
template <int kWidth, class Move>
__device__ inline void for_runs(int64_t first, int64_t rows, int64_t features, const Move& move) {
  constexpr int kRun = MlpTile<kWidth>::kRun;
  const int64_t row = opaque(first) + fragment_row();
#pragma unroll
  for (int group = 0; group < kWidth / (4 * kRun); ++group) {
    const int64_t col = (4 * group + static_cast<int>(threadIdx.x) % 4) * kRun;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int64_t left = row + 8 * r < rows ? features - col : 0;
      move((row + 8 * r) * features + col, left,
           [&](int q) { return 2 * (group * (kRun / 2) + q) + r; });
    }
  }
}

// The thread's pairs of 64 rows of x.
template <int kWidth, class T>
__device__ inline void load_rows(uint32_t (&a)[kWidth / 4], const T* x, int64_t first, int64_t rows,
                                 int64_t features) {
  constexpr int kRun = MlpTile<kWidth>::kRun;
  const bool whole = moves_whole<kWidth>(x, features);
  for_runs<kWidth>(first, rows, features, [&](int64_t offset, int64_t left, const auto& at) {
    uint32_t pair[kRun / 2];
    load_pairs<kRun>(pair, x + offset, left, whole);
#pragma unroll
    for (int q = 0; q < kRun / 2; ++q) a[at(q)] = pair[q];
  });
}

// The other way round.
template <int kWidth, class T>
__device__ inline void store_rows(T* y, const uint32_t (&a)[kWidth / 4], int64_t first,
                                  int64_t rows, int64_t features) {
  constexpr int kRun = MlpTile<kWidth>::kRun;
  const bool whole = moves_whole<kWidth>(y, features);
  for_runs<kWidth>(first, rows, features, [&](int64_t offset, int64_t left, const auto& at) {
    T* const to = y + offset;
    if (whole && left >= kRun) {
      if constexpr (kRun == 8) {
        store_16(to, uint4{a[at(0)], a[at(1)], a[at(2)], a[at(3)]});
      } else {
        *reinterpret_cast<uint2*>(to) = uint2{a[at(0)], a[at(1)]};
      }
      return;
    }
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      if (i < left) to[i].bits = static_cast<uint16_t>(a[at(i / 2)] >> i % 2 * 16);
    }
  });
}

// All weights and biases into shared memory, zeros around them: (layers, kWeight bytes) in the
// 128-byte swizzle, row o of a slab holding 64 of i; then (layers, kWidth) floats.
template <int kWidth, class T>
__device__ inline void load_parameters(unsigned char* weights, float* biases,
                                       const MlpArrays<const T>& parameters,
                                       const MlpShape& shape) {
  using Tile = MlpTile<kWidth>;
  constexpr int kRowsAtOnce = 8 / Tile::kChunks;  // in the 8 lanes that store 128 bytes
  const auto threads = static_cast<int>(blockDim.x);
  const auto tid = static_cast<int>(threadIdx.x);
#pragma unroll 1
  for (int l = 0; l < shape.layers; ++l) {
    const int64_t in = shape.features[l], out = shape.features[l + 1];
    const T* const weight = parameters.weight[l];
    const bool is_last = l + 1 == shape.layers, whole = moves_whole<64>(weight, in);
    unsigned char* const to = weights + l * Tile::kWeight;
#pragma unroll 1
    for (int index = tid; index < Tile::kWeight / Tile::kSlab * kWidth * Tile::kChunks;
         index += threads) {
      const int slab = index / (kWidth * Tile::kChunks), chunk = index % Tile::kChunks;
      // Rows whose chunks lie in different banks go together.
      const int i = index / Tile::kChunks % kWidth;
      const int row = i / 8 * 8 + i % kRowsAtOnce * Tile::kChunks + i % 8 / kRowsAtOnce;
      const int o = is_last ? outer_column<kWidth>(row) : row;
      const int col = slab * 64 + chunk * 8;
      uint32_t pair[4];
      load_pairs<8>(pair, weight + o * in + col, o < out ? in - col : 0, whole);
      const auto at = [&](int column) {
        const int byte = row * 128 + column % 64 * 2;
        return to + column / 64 * Tile::kSlab + swizzle_128b(static_cast<uint32_t>(byte));
      };
      if (l > 0) {
        *reinterpret_cast<uint4*>(at(col)) = uint4{pair[0], pair[1], pair[2], pair[3]};
      } else {
        // Of 16 columns a warp stores rows 8 apart, in the same banks: each half begins elsewhere.
        const bool turned = kWidth == 16 && row % 16 >= 8;
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          const int column = fragment_column<kWidth>(col + 2 * (turned ? q ^ 2 : q));
          *reinterpret_cast<uint32_t*>(at(column)) = turned ? pair[q ^ 2] : pair[q];
        }
      }
    }
    const T* const bias = parameters.bias[l];
    for (int row = tid; row < kWidth; row += threads) {
      const int o = is_last ? outer_column<kWidth>(row) : row;
      biases[l * kWidth + row] = bias != nullptr && o < out ? widen(bias[o]) : 0.0f;
    }
  }
}

// d = a layer's bias in every row, or nothing.
template <int kWidth>
__device__ inline void start_sums(float (&d)[kWidth / 2], const float* bias) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int j = 0; j < kWidth / 8; ++j) {
    const float2 pair = *reinterpret_cast<const float2*>(bias + 8 * j + 2 * t);
    d[4 * j] = d[4 * j + 2] = pair.x;
    d[4 * j + 1] = d[4 * j + 3] = pair.y;
  }
}

// d += a W^T of the weight at `weight`.
template <int kWidth, class T>
__device__ inline void multiply(float (&d)[kWidth / 2], const uint32_t (&a)[kWidth / 4],
                                const unsigned char* weight) {
  wgmma_fence();
  wgmma_chain<kWidth, T, Major::k>(d, a, [&](int step) {
    return wgmma_descriptor(weight + step / 4 * MlpTile<kWidth>::kSlab + step % 4 * 32, 16, 1024);
  });
  wgmma_commit();
  wgmma_wait<0>();
  wgmma_settle(d);
}

// Columns from `features` on become 0: what pads a layer must not spread NaN from infinities.
// kOuter: the columns are those of a matrix outside.
template <int kWidth, bool kOuter = false>
__device__ inline void clear_padding(uint32_t (&a)[kWidth / 4], int64_t features) {
  if (features == kWidth) return;
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int p = 0; p < kWidth / 4; ++p) {
    const int column = p / 2 * 8 + 2 * t;
    const int64_t left = features - (kOuter ? outer_column<kWidth>(column) : column);
    a[p] = left >= 2 ? a[p] : left == 1 ? a[p] & 0xffffu : 0;
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
