// SPDX-License-Identifier: MIT
// How the rungs cut c into tiles, and how a block brings the operands of a tile to shared memory.
//
// Shapes:      an operand tile is (kTileK, kTileX) with x along m (of a) or n (of b): both operands
//              lie in shared memory with x contiguous, whatever their strides in global memory.
// Parallelism: consecutive threads go along the axis that is contiguous in global memory, p or x.
// Memory:      coalesced for NN, NT, TN and TT alike; kTileK elements at a time where p is the
//              contiguous axis. A row of the tile has 16 bytes more than kTileX elements: threads
//              along p then write to different banks, and rows stay aligned to 16 bytes.
//              Exception: of 16-bit elements a slice of 8 along p is half a sector of 32 bytes, so
//              such an operand costs 2.0x the sectors.
//              Elements outside the operand are zeros in the tile and are never read.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../../host_device.hpp"
#include "../launch.cuh"
#include "../numeric.cuh"
#include "../ptx/cp_async.cuh"
#include "problem.hpp"
#include "register_tile.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

struct TilePosition {
  int64_t batch, row, col;  // of the tile's first element
};

// All tiles of all matrices in one line, so that no shape meets a limit of the grid. Inside a
// matrix they follow bands of kBand rows of tiles, column by column: blocks that run together then
// share columns of b as well as rows of a in the L2 cache.
template <int kTileM, int kTileN, int kBand = 1>
struct TileGrid {
  int64_t rows, cols, count;

  TILEGRAD_HOST_DEVICE explicit TileGrid(const MatmulSize& size)
      : rows((size.m + kTileM - 1) / kTileM),
        cols((size.n + kTileN - 1) / kTileN),
        count(size.batch * rows * cols) {}

  // In the arithmetic of Index, which holds `count`: 64 bits take a GPU a call a division.
  template <class Index>
  TILEGRAD_HOST_DEVICE TilePosition at(Index tile) const {
    const auto down = static_cast<Index>(rows), across = static_cast<Index>(cols);
    const Index batch = tile / (down * across);
    tile -= batch * (down * across);
    const Index band = tile / (kBand * across);
    tile -= band * (kBand * across);
    const Index height = down - band * kBand < kBand ? down - band * kBand : kBand;
    return {static_cast<int64_t>(batch), int64_t{kTileM} * (band * kBand + tile % height),
            int64_t{kTileN} * (tile / height)};
  }

  // The tile of this block. Blocks beyond the last tile get one outside c, where nothing is read
  // and nothing is written.
  __device__ TilePosition of_block(const MatmulSize& size) const {
    return of_block(size, block_index());
  }
  __device__ TilePosition of_block(const MatmulSize& size, int64_t block) const {
    return block < count ? at(block) : TilePosition{0, size.m, size.n};
  }
  __device__ static int64_t block_index() { return blockIdx.x + int64_t{gridDim.x} * blockIdx.y; }

  // A block a tile, on two axes of the grid where one is not enough.
  dim3 blocks() const {
    constexpr int64_t kMost = 0x7fffffff;
    return dim3(static_cast<unsigned>(std::min(count, kMost)),
                static_cast<unsigned>((count + kMost - 1) / kMost));
  }
};

// How a thread moves its part of an operand tile.
enum class Move {
  element,  // one at a time
  group,    // a group at a time where the operand's alignment and strides allow
  async,    // by cp.async: done after cp_async_wait, without a register on the way
};

// An operand of one tile of c, slice after slice of k: the part of one thread out of kThreads.
template <class T, int kTileX, int kTileK, int kThreads, Move kMove>
class OperandTile {
 public:
  using V = Accumulate<T>;
  static constexpr int kPitch = kTileX + kGroup<V>;
  static constexpr int kSize = kTileK * kPitch;  // elements in shared memory

  // Operand elements are first[x * x_stride + p * p_stride] for x < x_count.
  __device__ OperandTile(const T* first, int64_t x_stride, int64_t p_stride, int64_t x_count,
                         int tid)
      : x_left_(static_cast<int>(x_count < kTileX ? x_count : kTileX)),
        along_p_(p_stride == 1 && x_stride != 1),
        wide_(kMove != Move::element && whole_groups(first, x_stride, p_stride)) {
    // Runs of elements that are neighbours in memory are dealt out to the threads in turn.
    const int run = wide_ ? kGroup<T> : 1;
    const int across = along_p_ ? kTileK / run : kTileX / run;
    const int fast = tid % across * run;
    const int slow = tid / across;
    x_ = along_p_ ? slow : fast;
    p_ = along_p_ ? fast : slow;
    source_ = first + x_ * x_stride + p_ * p_stride;
    source_hop_ = kThreads / across * (along_p_ ? x_stride : p_stride);
    source_slice_ = kTileK * p_stride;
  }

  // Brings the next slice of k, of which p_left steps are left.
  __device__ void load_next(V* tile, int64_t p_left) {
    const int steps = static_cast<int>(p_left < kTileK ? p_left : kTileK);
    V* const target = tile + p_ * kPitch + x_;
    if constexpr (kMove == Move::element) {
      load_elements(target, steps);
    } else {
      wide_ ? load_groups(target, steps) : load_elements(target, steps);
    }
    source_ += source_slice_;
  }

 private:
  // A 16-bit element is widened on its way, which cp.async cannot do.
  static constexpr bool kAsync = kMove == Move::async && sizeof(T) == sizeof(V);

  __device__ bool whole_groups(const T* first, int64_t x_stride, int64_t p_stride) const {
    constexpr int64_t kBytes = sizeof(GroupBits<T>);
    const int64_t other = along_p_ ? x_stride : p_stride;
    return (along_p_ ? !kAsync : x_stride == 1) &&  // cp.async cannot transpose a group
           reinterpret_cast<uintptr_t>(first) % kBytes == 0 &&
           other * static_cast<int64_t>(sizeof(T)) % kBytes == 0;
  }

  __device__ void load_elements(V* target, int steps) const {
    constexpr int kSteps = kTileX * kTileK / kThreads;
    static_assert(kSteps * kThreads == kTileX * kTileK);
    const int x_hop = along_p_ ? kThreads / kTileK : 0;
    const int p_hop = along_p_ ? 0 : kThreads / kTileX;
    // Loads are started together; copies need no registers, and keep few addresses in them.
    [[maybe_unused]] constexpr int kUnroll = kAsync ? 1 : kSteps;
    const T* source = source_;
#pragma unroll kUnroll
    for (int s = 0; s < kSteps; ++s) {
      const bool inside = x_ + s * x_hop < x_left_ && p_ + s * p_hop < steps;
      V* const to = target + s * (p_hop * kPitch + x_hop);
      if constexpr (kAsync) {
        cp_async_zfill<sizeof(T)>(to, source, inside);
      } else {
        *to = inside ? widen(*source) : V(0);
      }
      source += source_hop_;
    }
  }

  __device__ void load_groups(V* target, int steps) const {
    constexpr int kSteps = kTileX * kTileK / (kGroup<T> * kThreads);
    static_assert(kSteps * kGroup<T> * kThreads == kTileX * kTileK);
    const int x_hop = along_p_ ? kThreads / (kTileK / kGroup<T>) : 0;
    const int p_hop = along_p_ ? 0 : kThreads / (kTileX / kGroup<T>);
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int x_left = x_left_ - x_ - s * x_hop;
      const int p_left = steps - p_ - s * p_hop;
      const int left = along_p_ ? (x_left > 0 ? p_left : 0) : (p_left > 0 ? x_left : 0);
      const T* const source = source_ + s * source_hop_;
      V* const to = target + s * (p_hop * kPitch + x_hop);
      if constexpr (kAsync) {
        if (left <= 0 || left >= kGroup<T>) {
          cp_async_16_zfill(to, source, left > 0);
        } else {
#pragma unroll
          for (int e = 0; e < kGroup<T>; ++e) {
            cp_async_zfill<sizeof(T)>(to + e, source + e, e < left);
          }
        }
        continue;
      }
      T value[kGroup<T>] = {};
      if (left >= kGroup<T>) {
        load_group(value, source);
      } else {
#pragma unroll
        for (int e = 0; e < kGroup<T>; ++e) {
          if (e < left) value[e] = source[e];
        }
      }
      V wide[kGroup<T>];
#pragma unroll
      for (int e = 0; e < kGroup<T>; ++e) wide[e] = widen(value[e]);
      if (along_p_) {  // the transposition: one store an element
#pragma unroll
        for (int e = 0; e < kGroup<T>; ++e) to[e * kPitch] = wide[e];
      } else {
        store_group(to, wide);
      }
    }
  }

  const T* source_;  // the thread's first run of the next slice
  int64_t source_hop_, source_slice_;
  int x_left_;
  int x_, p_;     // that run in the tile
  bool along_p_;  // p is the contiguous axis
  bool wide_;     // whole groups along the contiguous axis
};

template <class Tile, class T>
__device__ inline Tile operand_a(const MatmulProblem<T>& problem, const TilePosition& tile,
                                 int tid) {
  const Matrix<const T>& a = problem.a;
  return {a.data + tile.batch * a.batch_stride + tile.row * a.row_stride, a.row_stride,
          a.col_stride, problem.size.m - tile.row, tid};
}
template <class Tile, class T>
__device__ inline Tile operand_b(const MatmulProblem<T>& problem, const TilePosition& tile,
                                 int tid) {
  const Matrix<const T>& b = problem.b;
  return {b.data + tile.batch * b.batch_stride + tile.col * b.col_stride, b.col_stride,
          b.row_stride, problem.size.n - tile.col, tid};
}

}  // namespace tilegrad::TILEGRAD_BACKEND
