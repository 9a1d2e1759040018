// SPDX-License-Identifier: MIT
// Math:        pack: y = the elements of x in C order; fill: y_i = value.
// Shapes:      x: up to 32 axes of any strides; host code first merges axes that lie one behind
//              the other. Elements move as bits, so types of one width share their kernels.
// Parallelism: contiguous: a packet a thread. A row-major copy of columns: 32 x 32 tiles through
//              shared memory by 32 x 8 threads. Anything else: an element a thread, whose index is
//              taken apart axis by axis. All grid-stride.
// Memory:      writes are coalesced; reads too where contiguous or tiled (a stride of one in some
//              axis), else at worst one sector an element. Tile rows of 33 words: no conflicts.
// Source:      tile: Ruetsch and Micikevicius, Optimizing Matrix Transpose in CUDA (2009).
#include <algorithm>
#include <bit>
#include <cmath>
#include <type_traits>

#include "../ops.hpp"
#include "vector_io.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxAxes = 32;
constexpr int kTile = 32;
constexpr int kTileThreads = 8;  // threads a tile column
static_assert(kTile * kTileThreads == kThreads);

// Axes of size 2 and more with their strides in x and in y.
struct Axes {
  int count = 0;
  int64_t sizes[kMaxAxes], from[kMaxAxes], to[kMaxAxes];
};

// The same elements in the same order with as few axes as can be. No size is 0.
Axes merged(const StridedShape& shape) {
  Axes axes;
  for (int axis = 0; axis < shape.count; ++axis) {
    const int64_t size = shape.sizes[axis], stride = shape.strides[axis];
    if (size == 1) continue;
    const int last = axes.count - 1;
    if (last >= 0 && axes.from[last] == size * stride) {
      axes.sizes[last] *= size;
      axes.from[last] = stride;
    } else {
      axes.sizes[axes.count] = size;
      axes.from[axes.count++] = stride;
    }
  }
  int64_t product = 1;
  for (int axis = axes.count - 1; axis >= 0; --axis) {
    axes.to[axis] = product;
    product *= axes.sizes[axis];
  }
  return axes;
}

// Moves an axis that has stride one in x next to the last, for transpose_kernel. False, and nothing
// moved, where there is none or where its tiles would be mostly idle.
bool move_columns(Axes& axes) {
  constexpr int64_t kFewest = 8;
  const int last = axes.count - 1;
  if (last < 1 || axes.from[last] == 1 || axes.sizes[last] < kFewest) return false;
  for (int axis = 0; axis < last; ++axis) {
    if (axes.from[axis] != 1 || axes.sizes[axis] < kFewest) continue;
    for (int64_t* values : {axes.sizes, axes.from, axes.to}) {
      std::rotate(values + axis, values + axis + 1, values + last);
    }
    return true;
  }
  return false;
}

// Where in x, or in y, element `index` of the first `count` axes lies.
template <class Index>
__device__ inline int64_t offset_of(Index index, int count, const int64_t* sizes,
                                    const int64_t* strides) {
  int64_t offset = 0;
  for (int axis = count - 1; axis >= 0; --axis) {
    const Index size = static_cast<Index>(sizes[axis]);
    const Index rest = index / size;
    offset += static_cast<int64_t>(index - rest * size) * strides[axis];
    index = rest;
  }
  return offset;
}

template <class Bits>
__global__ void __launch_bounds__(kThreads, 2)
    copy_kernel(Bits* y, const Bits* x, int64_t n, bool aligned) {
  grid_dependency_wait();
  const auto store = [&](Slot<Bits> slot, const Packet<Bits>& packet) { slot.store(y, packet); };
  for_packets<Bits, 4>(grid_thread(), grid_threads(), n, aligned, store, x);
}

// Index: an integer that holds n; 32 bits divide much faster than 64.
template <class Index, class Bits>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(Bits* y, const Bits* x, int64_t n, const __grid_constant__ Axes axes) {
  grid_dependency_wait();
  for (int64_t i = grid_thread(); i < n; i += grid_threads()) {
    y[i] = x[offset_of(static_cast<Index>(i), axes.count, axes.sizes, axes.from)];
  }
}

// A tile is rows, one behind the other in x, by columns, one behind the other in y.
template <class Bits>
__global__ void __launch_bounds__(kThreads)
    transpose_kernel(Bits* y, const Bits* x, int64_t tiles, const __grid_constant__ Axes axes) {
  grid_dependency_wait();
  // A word at least, so that the odd row length keeps columns of it in banks of their own.
  using Word = std::conditional_t<(sizeof(Bits) < sizeof(uint32_t)), uint32_t, Bits>;
  __shared__ Word tile[kTile][kTile + 1];  // (col, row), padded
  const int outer = axes.count - 2;
  const int64_t rows = axes.sizes[outer], cols = axes.sizes[outer + 1];
  const int64_t from_stride = axes.from[outer + 1], to_stride = axes.to[outer];
  const int64_t row_tiles = (rows + kTile - 1) / kTile, col_tiles = (cols + kTile - 1) / kTile;
  const int lane = static_cast<int>(threadIdx.x) % kTile;
  const int warp = static_cast<int>(threadIdx.x) / kTile;
  for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
    const int64_t batch = t / (row_tiles * col_tiles), within = t % (row_tiles * col_tiles);
    const int64_t first_row = within / col_tiles * kTile, first_col = within % col_tiles * kTile;
    const Bits* from = x + offset_of(batch, outer, axes.sizes, axes.from);
    Bits* to = y + offset_of(batch, outer, axes.sizes, axes.to);
    // The last tile's readers are done.
    __syncthreads();
#pragma unroll
    for (int i = warp; i < kTile; i += kTileThreads) {
      const int64_t row = first_row + lane, col = first_col + i;
      if (row < rows && col < cols) tile[i][lane] = from[row + col * from_stride];
    }
    // The tile is complete.
    __syncthreads();
#pragma unroll
    for (int i = warp; i < kTile; i += kTileThreads) {
      const int64_t row = first_row + i, col = first_col + lane;
      if (row < rows && col < cols) to[row * to_stride + col] = static_cast<Bits>(tile[lane][i]);
    }
  }
}

template <class Bits>
void pack_bits(Context& context, Bits* y, const Bits* x, const StridedShape& shape) {
  int64_t n = 1;
  for (int axis = 0; axis < shape.count; ++axis) n *= shape.sizes[axis];
  if (n == 0) return;
  Axes axes = merged(shape);
  if (axes.count == 0 || (axes.count == 1 && axes.from[0] == 1)) {
    launch_next(copy_kernel<Bits>, packet_blocks<copy_kernel<Bits>, Bits>(n, kThreads), kThreads, 0,
                context, y, x, n, packet_aligned(y, x));
  } else if (move_columns(axes)) {
    const int64_t rows = axes.sizes[axes.count - 2], cols = axes.sizes[axes.count - 1];
    const int64_t tiles =
        n / (rows * cols) * ((rows + kTile - 1) / kTile) * ((cols + kTile - 1) / kTile);
    launch_next(transpose_kernel<Bits>, blocks_for(tiles, 1), kThreads, 0, context, y, x, tiles,
                axes);
  } else if (n <= INT32_MAX) {
    launch_next(gather_kernel<uint32_t, Bits>, blocks_for(n, kThreads), kThreads, 0, context, y, x,
                n, axes);
  } else {
    launch_next(gather_kernel<int64_t, Bits>, blocks_for(n, kThreads), kThreads, 0, context, y, x,
                n, axes);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    fill_kernel(T* y, int64_t n, bool aligned, Accumulate<T> value) {
  grid_dependency_wait();
  Packet<T> packet;
#pragma unroll
  for (T& element : packet.at) element = narrow<T>(value);
  for_slots<T>(grid_thread(), grid_threads(), n, aligned,
               [&](Slot<T> slot) { slot.store(y, packet); });
}

// A float that rounds to 16 bits as the double does: rounded to odd, it still tells on which side
// of a tie the double lies.
float round_to_odd(double value) {
  const auto nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) == value || std::isnan(value)) return nearest;
  uint32_t bits = std::bit_cast<uint32_t>(nearest);
  if (std::fabs(static_cast<double>(nearest)) > std::fabs(value)) --bits;
  return std::bit_cast<float>(bits | 1u);
}

}  // namespace

template <class T>
void pack(Context& context, T* y, const T* x, const StridedShape& shape) {
  using Bits = std::conditional_t<
      sizeof(T) == 1, uint8_t,
      std::conditional_t<sizeof(T) == 2, uint16_t,
                         std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>>;
  pack_bits(context, reinterpret_cast<Bits*>(y), reinterpret_cast<const Bits*>(x), shape);
}

template <class T>
void fill(Context& context, T* y, int64_t n, double value) {
  Accumulate<T> rounded;
  if constexpr (sizeof(T) == 2) {
    rounded = round_to_odd(value);
  } else {
    rounded = static_cast<T>(value);
  }
  launch_next(fill_kernel<T>, blocks_for(n, kThreads, kPacket<T>), kThreads, 0, context, y, n,
              packet_aligned(y), rounded);
}

template void pack(Context&, float*, const float*, const StridedShape&);
template void pack(Context&, double*, const double*, const StridedShape&);
template void pack(Context&, bfloat16*, const bfloat16*, const StridedShape&);
template void pack(Context&, float16*, const float16*, const StridedShape&);
template void pack(Context&, uint8_t*, const uint8_t*, const StridedShape&);
template void pack(Context&, uint16_t*, const uint16_t*, const StridedShape&);
template void pack(Context&, uint32_t*, const uint32_t*, const StridedShape&);
template void pack(Context&, uint64_t*, const uint64_t*, const StridedShape&);
template void fill(Context&, float*, int64_t, double);
template void fill(Context&, double*, int64_t, double);
template void fill(Context&, bfloat16*, int64_t, double);
template void fill(Context&, float16*, int64_t, double);

}  // namespace tilegrad::TILEGRAD_BACKEND
