// SPDX-License-Identifier: MIT
// Math:        y[o,i] = sum_a x[o,a,i].
// Shapes:      x (outer, axis, inner), y (outer, inner).
// Parallelism: a block's threads are groups x rows x width: neighbours along inner, then along the
//              axis, then along outer, so that a warp reads one run of memory in every shape. A
//              thread adds every rows-th element, then a tree in shared memory adds the rows. A
//              long axis with few outputs is cut into pieces; a second pass adds their sums. The
//              cuts depend on the shape only.
// Memory:      coalesced; one element read, 1 / axis written. Sums of float are kept in double.
// Source:      M. Harris, Optimizing Parallel Reduction in CUDA (2007).
#include "reduce.cuh"

#include <algorithm>
#include <bit>

#include "../ops.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kFewTiles = 512;     // with fewer tiles than this a long axis is cut
constexpr int64_t kPieceRows = 16;     // elements that a thread of a piece adds, at least
constexpr int64_t kMostPieces = 1024;  // and so elements that the second pass adds

// How a block's threads and the grid's blocks cover an array. The sizes of a block are powers of
// two whose product is kThreads.
struct SumShape {
  int64_t outer, axis, inner;
  int width, rows, groups;
  int64_t inner_tiles, tiles;  // a tile is `width` columns of `groups` of outer
  int64_t pieces, length;      // of the axis
};

SumShape sum_shape(int64_t outer, int64_t axis, int64_t inner) {
  const auto power = [](int64_t n) { return std::bit_ceil(static_cast<uint64_t>(n)); };
  const auto least = [](uint64_t a, int64_t b) {
    return static_cast<int>(std::min(a, static_cast<uint64_t>(b)));
  };
  SumShape s{};
  s.outer = outer, s.axis = axis, s.inner = inner;
  s.width = least(power(inner), kWarpSize);
  s.rows = least(power(std::max<int64_t>(axis, 1)), kThreads / s.width);
  s.width = least(power(inner), kThreads / s.rows);
  s.groups = kThreads / (s.width * s.rows);
  s.inner_tiles = (inner + s.width - 1) / s.width;
  s.tiles = s.inner_tiles * ((outer + s.groups - 1) / s.groups);
  s.pieces = 1;
  if (s.tiles < kFewTiles) {
    const int64_t most = std::min(kMostPieces, (2 * kFewTiles + s.tiles - 1) / s.tiles);
    s.pieces = std::clamp<int64_t>(axis / (s.rows * kPieceRows), 1, most);
  }
  s.length = (axis + s.pieces - 1) / s.pieces;
  return s;
}

// Out: the type of y; In: of x; S: of the sums. Piece p of the axis goes to row p of y.
template <class Out, class In, class S>
__global__ void __launch_bounds__(kThreads)
    sum_axis_kernel(Out* y, const In* x, SumShape s, bool accumulate) {
  grid_dependency_wait();
  __shared__ S sums[kThreads];  // (groups, rows, width)
  const int tid = static_cast<int>(threadIdx.x);
  const int col = tid % s.width;
  const int row = tid / s.width % s.rows;
  const int group = tid / (s.width * s.rows);
  const int64_t begin = min(s.axis, static_cast<int64_t>(blockIdx.y) * s.length);
  const int64_t end = min(s.axis, begin + s.length);
  for (int64_t tile = blockIdx.x; tile < s.tiles; tile += gridDim.x) {
    const int64_t i = tile % s.inner_tiles * s.width + col;
    const int64_t o = tile / s.inner_tiles * s.groups + group;
    const bool inside = i < s.inner && o < s.outer;
    S sum = 0;
    if (inside) {
      const In* from = x + o * s.axis * s.inner + i;
#pragma unroll 4
      for (int64_t a = begin + row; a < end; a += s.rows) {
        sum += static_cast<S>(widen(from[a * s.inner]));
      }
    }
    // The last tile's sums are read.
    __syncthreads();
    sums[tid] = sum;
    for (int half = s.rows / 2; half > 0; half /= 2) {
      // The sums of 2 * half rows are written.
      __syncthreads();
      if (row < half) sums[tid] += sums[tid + half * s.width];
    }
    if (row == 0 && inside) {
      Out& target = y[(blockIdx.y * s.outer + o) * s.inner + i];
      const auto total = static_cast<Accumulate<Out>>(sums[tid]);
      target = narrow<Out>(accumulate ? widen(target) + total : total);
    }
  }
}

template <class Out, class In, class S>
void launch_sum(Context& context, Out* y, const In* x, const SumShape& s, bool accumulate) {
  const dim3 grid(blocks_for(s.tiles, 1), static_cast<unsigned>(s.pieces));
  launch_next(sum_axis_kernel<Out, In, S>, grid, kThreads, 0, context, y, x, s, accumulate);
}

// As sum_axis, of T into Out.
template <class Out, class T>
void sum(Context& context, Out* y, const T* x, int64_t outer, int64_t axis, int64_t inner,
         bool accumulate) {
  const int64_t outputs = outer * inner;
  if (outputs == 0) return;
  const SumShape s = sum_shape(outer, axis, inner);
  if (s.pieces == 1) {
    launch_sum<Out, T, Sum<T>>(context, y, x, s, accumulate);
    return;
  }
  WorkspaceScope scope(context);
  Sum<T>* sums = context.workspace->take<Sum<T>>(s.pieces * outputs);
  launch_sum<Sum<T>, T, Sum<T>>(context, sums, x, s, false);
  sum_pieces(context, y, sums, s.pieces, outputs, accumulate);
}

}  // namespace

template <class T, class S>
void sum_pieces(Context& context, T* y, const S* sums, int64_t pieces, int64_t n, bool accumulate) {
  if (n == 0) return;
  SumShape s = sum_shape(1, pieces, n);
  s.pieces = 1, s.length = pieces;
  launch_sum<T, S, S>(context, y, sums, s, accumulate);
}

template <class Out, class T>
void sum_rows(Context& context, Out* y, const T* x, int64_t rows, int64_t cols, bool accumulate) {
  sum(context, y, x, 1, rows, cols, accumulate);
}

template <class T>
void sum_axis(Context& context, T* y, const T* x, int64_t outer, int64_t axis, int64_t inner,
              bool accumulate) {
  sum(context, y, x, outer, axis, inner, accumulate);
}

#define TILEGRAD_INSTANTIATE(T)                                                  \
  template void sum_pieces(Context&, T*, const Sum<T>*, int64_t, int64_t, bool); \
  template void sum_rows(Context&, T*, const T*, int64_t, int64_t, bool);        \
  template void sum_axis(Context&, T*, const T*, int64_t, int64_t, int64_t, bool);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
TILEGRAD_INSTANTIATE(bfloat16)
TILEGRAD_INSTANTIATE(float16)
#undef TILEGRAD_INSTANTIATE
template void sum_pieces(Context&, float*, const float*, int64_t, int64_t, bool);
template void sum_rows(Context&, float*, const bfloat16*, int64_t, int64_t, bool);
template void sum_rows(Context&, float*, const float16*, int64_t, int64_t, bool);
template void sum_rows(Context&, bfloat16*, const float*, int64_t, int64_t, bool);
template void sum_rows(Context&, float16*, const float*, int64_t, int64_t, bool);

}  // namespace tilegrad::TILEGRAD_BACKEND
