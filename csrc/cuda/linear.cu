// SPDX-License-Identifier: MIT
// Math:        y = f(x W^T + b);  dz = dy f'(z), dx = dz W, dW = dz^T x, db = sum over rows of dz.
// Shapes:      x (rows, in), W (out, in), y and dz (rows, out).
// Parallelism: products are matmul's; W is transposed by its strides alone. dz and db leave one
//              pass: a block's threads are rows x columns of packets, a thread walks down its
//              columns; a tree in shared memory adds the block's rows, the sums of pieces of the
//              rows are added by a second pass. The cuts depend on the shape only.
// Memory:      coalesced; the pass reads dy and what was saved, writes dz. Bias, f and the
//              preactivation are in the epilogue of the product. dz is kept in workspace.
//              Exception: the block's sums, one row, leave a packet's column at a time: 4.0x the
//              sectors (double 2.0x, 16 bits 8.0x) of 1 row in 64 or more.
#include <algorithm>
#include <bit>
#include <type_traits>

#include "../ops.hpp"
#include "activation_gradient.cuh"
#include "linear_chain.hpp"
#include "matmul/problem.hpp"
#include "reduce.cuh"
#include "vector_io.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kFewBlocks = 1024;  // rows are cut into pieces up to about as many blocks
constexpr int64_t kPieceRows = 8;     // that a thread adds, at least

// How the threads of a block and the blocks of a grid cover (rows, out).
struct Cover {
  int width, depth;        // of a block in threads: powers of two whose product is kThreads
  unsigned tiles;          // of `width` packets along out
  int64_t pieces, length;  // of the rows
};

template <class T>
Cover cover(int64_t rows, int64_t out) {
  const int64_t packets = (out + kPacket<T> - 1) / kPacket<T>;
  const auto width = static_cast<int>(
      std::min<uint64_t>(kWarpSize, std::bit_ceil(static_cast<uint64_t>(packets))));
  const int depth = kThreads / width;
  const int64_t tiles = (packets + width - 1) / width;
  const int64_t most = std::max<int64_t>(1, kFewBlocks / tiles);
  const int64_t pieces = std::clamp<int64_t>(rows / (depth * kPieceRows), 1, most);
  return {width, depth, static_cast<unsigned>(tiles), pieces, (rows + pieces - 1) / pieces};
}

// dz = dy f', and sums[piece, col] = the sum of dz over a piece of the rows. dz may be null.
template <class T, class Gradient>
__global__ void __launch_bounds__(kThreads, 2)
    bias_gradient_kernel(T* dz, Sum<T>* sums, const T* dy, const T* saved, int64_t rows,
                         int64_t out, Cover c, bool aligned, Gradient gradient) {
  grid_dependency_wait();
  __shared__ Sum<T> partial[kPacket<T>][kThreads];  // (column of a packet, (depth, width))
  const int tid = static_cast<int>(threadIdx.x);
  const int lane = tid % c.width;
  const int row = tid / c.width;
  // Unaligned columns go round the lanes of a whole warp: coalesced, and the same sums.
  const bool spread = !aligned && c.width == kWarpSize;
  const int64_t tile_first = int64_t{blockIdx.x} * c.width * kPacket<T>;
  const Slot<T> slot(tile_first + (spread ? lane : lane * kPacket<T>), out, aligned, spread);
  const int64_t begin = int64_t{blockIdx.y} * c.length;
  const int64_t end = min(rows, begin + c.length);
  Sum<T> total[kPacket<T>] = {};
  for (int64_t r = begin + row; r < end; r += c.depth) {
    Packet<T> packet = slot.load(dy + r * out);
    const Packet<T> basis = slot.load(saved + r * out);
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) {
      const Accumulate<T> value = gradient(widen(packet.at[j]), widen(basis.at[j]));
      packet.at[j] = narrow<T>(value);
      total[j] += static_cast<Sum<T>>(value);
    }
    if (dz != nullptr) slot.store(dz + r * out, packet);
  }
#pragma unroll
  for (int j = 0; j < kPacket<T>; ++j) partial[j][tid] = total[j];
  for (int half = c.depth / 2; half > 0; half /= 2) {
    // The sums of 2 * half rows of threads are written.
    __syncthreads();
    if (row < half) {
#pragma unroll
      for (int j = 0; j < kPacket<T>; ++j) partial[j][tid] += partial[j][tid + half * c.width];
    }
  }
  if (row == 0) {
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) {
      const int64_t col = slot.index(j);
      if (col < out) sums[blockIdx.y * out + col] = partial[j][tid];
    }
  }
}

// dz, where it is not null, and dbias from one pass over dy.
template <class T, class G>
void bias_gradient(Context& context, T* dz, G* dbias, const T* dy, const T* saved,
                   bool saved_is_output, int64_t rows, int64_t out, Activation activation,
                   bool accumulate) {
  if (rows == 0 || out == 0) {
    sum_rows(context, dbias, dy, rows, out, accumulate);
    return;
  }
  const Cover c = cover<T>(rows, out);
  WorkspaceScope scope(context);
  Sum<T>* sums = context.workspace->take<Sum<T>>(c.pieces * out);
  const bool aligned = packet_aligned(dz, dy, saved) && out % kPacket<T> == 0;
  visit_gradient(activation, saved_is_output, [&](auto gradient) {
    launch_next(bias_gradient_kernel<T, decltype(gradient)>,
                dim3(c.tiles, static_cast<unsigned>(c.pieces)), kThreads, 0, context, dz, sums, dy,
                saved, rows, out, c, aligned, gradient);
  });
  sum_pieces(context, dbias, sums, c.pieces, out, accumulate);
}

// dweight = dz^T x. Gradients in float are sums of products that were never rounded.
template <class T, class G>
void weight_gradient(Context& context, G* dweight, const T* dz, const T* x, LinearSize size,
                     bool accumulate) {
  const auto [rows, in, out] = size;
  MatmulProblem<T> problem = {.c = {nullptr, in, 1},
                              .a = {dz, 1, out},
                              .b = {x, in, 1},
                              .size = {1, out, in, rows},
                              .alpha = 1,
                              .beta = accumulate ? Accumulate<T>(1) : Accumulate<T>(0),
                              .epilogue = {}};
  if constexpr (std::is_same_v<T, G>) {
    problem.c.data = dweight;
  } else {
    problem.wide = {dweight, in, 1};
  }
  run_matmul(context, problem);
}

// dx = dz W, or what the layer below wants of it.
template <class T, class G>
void input_gradient(Context& context, T* dx, const T* dz, const T* weight, LinearSize size,
                    const BackwardBelow<T, G>& below, bool accumulate) {
  const auto [rows, in, out] = size;
  WorkspaceScope scope(context);
  MatmulProblem<T> problem = {.c = {dx, in, 1},
                              .a = {dz, out, 1},
                              .b = {weight, in, 1},
                              .size = {1, rows, in, out},
                              .alpha = 1,
                              .beta = 0,
                              .epilogue = {}};
  if (below.activation.kind != ActivationKind::identity) {
    problem.below = {below.saved, below.saved_is_output, below.activation};
  }
  if (below.dbias == nullptr) {
    run_matmul(context, problem);
    return;
  }
  if constexpr (sizeof(T) < sizeof(G)) {  // else long sums are kept in more than the product has
    const int64_t pieces = pieces_of_rows(rows);
    problem.below.sums = context.workspace->take<G>(pieces * in);
    if (run_matmul(context, problem)) {
      return sum_rows(context, below.dbias, problem.below.sums, pieces, in, accumulate);
    }
  } else {
    run_matmul(context, problem);
  }
  sum_rows(context, below.dbias, dx, rows, in, accumulate);
}

}  // namespace

template <class T>
void linear(Context& context, T* y, T* preactivation, const T* x, const T* weight, const T* bias,
            LinearSize size, Activation activation) {
  const auto [rows, in, out] = size;
  matmul<T>(context, {y, out, 1}, {x, in, 1}, {weight, 1, in}, {1, rows, out, in}, 1, 0,
            {bias, activation, preactivation});
}

template <class T, class G>
void linear_backward_chain(Context& context, T* dx, G* dweight, G* dbias, const T* dy, const T* x,
                           const T* weight, const T* saved, bool saved_is_output, LinearSize size,
                           Activation activation, bool accumulate,
                           const BackwardBelow<T, G>& below) {
  const auto [rows, in, out] = size;
  const bool has_activation = activation.kind != ActivationKind::identity;
  const bool has_product = dx != nullptr || dweight != nullptr;
  WorkspaceScope scope(context);
  T* product = has_activation && has_product ? context.workspace->take<T>(rows * out) : nullptr;
  if (dbias != nullptr && has_activation) {
    bias_gradient(context, product, dbias, dy, saved, saved_is_output, rows, out, activation,
                  accumulate);
  } else if (dbias != nullptr) {
    sum_rows(context, dbias, dy, rows, out, accumulate);
  } else if (product != nullptr) {
    activation_backward<T>(context, product, dy, saved, saved_is_output, rows * out, activation);
  }
  const T* dz = product == nullptr ? dy : product;
  if (dx != nullptr) input_gradient(context, dx, dz, weight, size, below, accumulate);
  if (dweight != nullptr) weight_gradient(context, dweight, dz, x, size, accumulate);
}

template <class T, class G>
void linear_backward(Context& context, T* dx, G* dweight, G* dbias, const T* dy, const T* x,
                     const T* weight, const T* saved, bool saved_is_output, LinearSize size,
                     Activation activation, bool accumulate) {
  linear_backward_chain(context, dx, dweight, dbias, dy, x, weight, saved, saved_is_output, size,
                        activation, accumulate, {});
}

#define TILEGRAD_BACKWARD(T, G)                                                               \
  template void linear_backward(Context&, T*, G*, G*, const T*, const T*, const T*, const T*, \
                                bool, LinearSize, Activation, bool);                          \
  template void linear_backward_chain(Context&, T*, G*, G*, const T*, const T*, const T*,     \
                                      const T*, bool, LinearSize, Activation, bool,           \
                                      const BackwardBelow<T, G>&);
#define TILEGRAD_INSTANTIATE(T)                                                                 \
  template void linear(Context&, T*, T*, const T*, const T*, const T*, LinearSize, Activation); \
  TILEGRAD_BACKWARD(T, T)
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
TILEGRAD_INSTANTIATE(bfloat16)
TILEGRAD_INSTANTIATE(float16)
TILEGRAD_BACKWARD(bfloat16, float)
TILEGRAD_BACKWARD(float16, float)
#undef TILEGRAD_INSTANTIATE
#undef TILEGRAD_BACKWARD

}  // namespace tilegrad::TILEGRAD_BACKEND
