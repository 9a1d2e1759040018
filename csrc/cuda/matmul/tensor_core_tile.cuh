// SPDX-License-Identifier: MIT
// The tiles of rung 9 in shared memory: how a thread brings its part (ChunkLoader), where an
// element lies and how mma fragments are read (SharedTile).
#pragma once

#include <cstdint>
#include <cstring>

#include "../ptx/cp_async.cuh"
#include "../ptx/ldmatrix.cuh"
#include "tile.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

template <class T>
struct TensorCoreTile {
  static constexpr int kM = 128, kN = 128;  // (kM, kN) of c
  static constexpr int kK = 64 / sizeof(T);
  static constexpr int kWarpsM = 2, kWarpsN = 4;
  static constexpr int kThreads = kWarpsM * kWarpsN * 32;
  static constexpr int kStages = 4;
  static constexpr int kMmaM = kM / kWarpsM / 16, kMmaN = kN / kWarpsN / 8;  // mma of a warp
  static constexpr int kOperandBytes = 128 * 64;
  static constexpr int kSharedBytes = kStages * 2 * kOperandBytes;
  using Grid = TileGrid<kM, kN, 8>;
};

// An operand tile of 128 x and 64 bytes of p in shared memory, 8 KB, x along m (of a) or n (of b).
// kAlongP: row x holds its p, 4 chunks of 16 bytes; chunk c is at c ^ (x / 2 % 4).
// Else row p holds its x; chunk c is at c ^ (p % 8) or, for float, at c ^ (2 p % 8).
// Eight rows of 16 bytes (ldmatrix), 32 words of a fragment (float along x) and 8 consecutive
// chunks (cp.async) each lie in different banks.
template <class T, bool kAlongP>
struct SharedTile {
  static constexpr int kChunk = 16 / sizeof(T);                                         // elements
  static constexpr int kRow = (kAlongP ? 64 : 128 * static_cast<int>(sizeof(T))) / 16;  // chunks
  static constexpr int kK = TensorCoreTile<T>::kK;

  __device__ static int chunk_at(int row, int chunk) {
    const int swizzle = kAlongP ? row / 2 % 4 : (sizeof(T) == 4 ? row * 2 % 8 : row % 8);
    return (row * kRow + (chunk ^ swizzle)) * 16;
  }
  __device__ static int byte_at(int x, int p) {
    const int row = kAlongP ? x : p, along = kAlongP ? p : x;
    return chunk_at(row, along / kChunk) + along % kChunk * static_cast<int>(sizeof(T));
  }

  // The fragment of a for rows x .. x + 15 and mma number `step` of the tile.
  __device__ static void fragment_a(uint32_t (&a)[4], const unsigned char* tile, int x, int step,
                                    int lane) {
    if constexpr (kAlongP) {
      ldmatrix_x4(a, tile + chunk_at(x + lane % 16, 2 * step + lane / 16));
    } else if constexpr (sizeof(T) == 2) {
      const int p = 16 * step + lane / 16 * 8 + lane % 8;
      ldmatrix_x4_trans(a, tile + chunk_at(p, x / kChunk + lane / 8 % 2));
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[i] = word(tile, x + lane / 4 + i % 2 * 8, 8 * step + lane % 4 + i / 2 * 4);
      }
    }
  }

  // The fragments of b for columns x .. x + 7 and x + 8 .. x + 15: b[0], b[1] and b[2], b[3].
  __device__ static void fragment_b(uint32_t (&b)[4], const unsigned char* tile, int x, int step,
                                    int lane) {
    if constexpr (kAlongP) {
      ldmatrix_x4(b, tile + chunk_at(x + lane % 8 + lane / 16 * 8, 2 * step + lane / 8 % 2));
    } else if constexpr (sizeof(T) == 2) {
      const int p = 16 * step + lane / 8 % 2 * 8 + lane % 8;
      ldmatrix_x4_trans(b, tile + chunk_at(p, x / kChunk + lane / 16));
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        b[i] = word(tile, x + lane / 4 + i / 2 * 8, 8 * step + lane % 4 + i % 2 * 4);
      }
    }
  }

 private:
  __device__ static uint32_t word(const unsigned char* tile, int x, int p) {
    return *reinterpret_cast<const uint32_t*>(tile + byte_at(x, p));
  }
};

// What one thread brings of an operand, stage after stage: two chunks of 16 bytes, kHop rows of the
// shared tile apart. Elements are first[x * x_stride + p * p_stride], x < x_count, p < k; what lies
// outside becomes zero.
template <class T, bool kAlongP>
class ChunkLoader {
 public:
  // wide: 16 bytes may be copied at a time.
  __device__ ChunkLoader(const T* first, int64_t x_stride, int64_t p_stride, int64_t x_count,
                         int64_t k, bool wide, int tid)
      : wide_(wide) {
    const int row = tid / Tile::kRow, chunk = tid % Tile::kRow;
    const int x = kAlongP ? row : chunk * kChunk, p = kAlongP ? chunk * kChunk : row;
    target_ = Tile::chunk_at(row, chunk);
    source_ = first + x * x_stride + p * p_stride;
    element_ = kAlongP ? p_stride : x_stride;
    hop_ = kHop * (kAlongP ? x_stride : p_stride);
    slice_ = Tile::kK * p_stride;
    p_left_ = k - p;
    if (kAlongP) {
      count_[0] = x < x_count ? kChunk : 0;
      count_[1] = x + kHop < x_count ? kChunk : 0;
    } else {
      count_[0] = count_[1] = clamp(x_count - x);
    }
  }

  __device__ void load_next(unsigned char* tile) {
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      const int inside = kAlongP ? clamp(p_left_) : p_left_ > s * kHop ? kChunk : 0;
      const int count = inside < count_[s] ? inside : count_[s];
      const T* const source = source_ + s * hop_;
      unsigned char* const target = tile + target_ + s * (TensorCoreTile<T>::kOperandBytes / 2);
      if (wide_) {
        cp_async_partial<16>(target, source, count * static_cast<int>(sizeof(T)));
      } else {
        T value[kChunk] = {};
#pragma unroll
        for (int e = 0; e < kChunk; ++e) {
          if (e < count) value[e] = source[e * element_];
        }
        uint32_t word[4];
        std::memcpy(word, value, 16);
        *reinterpret_cast<uint4*>(target) = uint4{word[0], word[1], word[2], word[3]};
      }
    }
    source_ += slice_;
    p_left_ -= Tile::kK;
  }

 private:
  using Tile = SharedTile<T, kAlongP>;
  static constexpr int kChunk = Tile::kChunk;
  static constexpr int kHop = TensorCoreTile<T>::kThreads / Tile::kRow;
  static_assert(2 * TensorCoreTile<T>::kThreads * 16 == TensorCoreTile<T>::kOperandBytes);
  static_assert(kHop % 8 == 0);  // both chunks have the same swizzle

  __device__ static int clamp(int64_t left) {
    return left <= 0 ? 0 : left < kChunk ? static_cast<int>(left) : kChunk;
  }

  const T* source_;
  int64_t element_, hop_, slice_;
  int64_t p_left_;
  int target_;
  int count_[2];  // elements that lie in the operand as far as x is concerned
  bool wide_;
};

}  // namespace tilegrad::TILEGRAD_BACKEND
