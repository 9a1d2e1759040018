// SPDX-License-Identifier: MIT
#include "hopper_tf32.cuh"

#include <algorithm>

#include "../matmul_choice.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

// An operand as rows of p: element (b, x, p) is data[b batch_stride + x x_stride + p p_stride].
struct Rows {
  const float* data;
  int64_t batch_stride, x_stride, p_stride;
};

// May the copy engine read it, p innermost? Steps are multiples of 16 bytes and below 2^40 bytes.
bool engine_reads(const Rows& x, int64_t k) {
  constexpr int64_t kStrideLimit = int64_t{1} << 38;
  const auto step = [](int64_t stride) { return stride % 4 == 0 && stride < kStrideLimit; };
  return x.p_stride == 1 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && step(x.x_stride) &&
         x.x_stride >= k && step(x.batch_stride) && x.batch_stride >= 0;
}

// The operand where and as the engine reads it: in place, or a copy in workspace.
Rows readable(Context& context, const Rows& x, int64_t batch, int64_t count, int64_t k) {
  if (engine_reads(x, k)) return x;
  const int64_t matrices = x.batch_stride == 0 ? 1 : batch;
  const int64_t sizes[] = {matrices, count, k};
  const int64_t strides[] = {x.batch_stride, x.x_stride, x.p_stride};
  auto* const copy = context.workspace->take<float>(matrices * count * k);
  pack(context, copy, x.data, {3, sizes, strides});
  return {copy, matrices == 1 ? 0 : count * k, k, 1};
}

TensorMap map_of(const Rows& x, int64_t batch, int64_t count, int64_t k, uint32_t box) {
  // A matrix that every batch shares is one matrix to the copy engine, with any stride.
  const bool one = x.batch_stride == 0;
  return make_tensor_map(x.data, {3,
                                  {k, count, one ? 1 : batch},
                                  {1, x.x_stride, one ? 4 : x.batch_stride},
                                  {32, box, 1},
                                  TensorElement::tf32});
}

template <int kTileN>
void start(Context& context, const MatmulProblem<float>& problem) {
  using Tile = HopperTf32Tile<kTileN>;
  const auto& [batch, m, n, k] = problem.size;
  const auto &a = problem.a, &b = problem.b;
  WorkspaceScope scope(context);
  const Rows left =
      readable(context, {a.data, a.batch_stride, a.row_stride, a.col_stride}, batch, m, k);
  const Rows right =
      readable(context, {b.data, b.batch_stride, b.col_stride, b.row_stride}, batch, n, k);
  const int64_t blocks =
      std::min<int64_t>(typename Tile::Grid(problem.size).count, device_info().multiprocessors);
  launch_next(matmul_hopper_tf32_kernel<kTileN>, dim3(static_cast<unsigned>(blocks)),
              dim3(Tile::kThreads), Tile::kSharedBytes, context, problem,
              map_of(left, batch, m, k, Tile::kM), map_of(right, batch, n, k, Tile::kN));
}

}  // namespace

template <class T>
bool matmul_hopper_tf32(Context& context, const MatmulProblem<T>& problem) {
  if constexpr (!std::is_same_v<T, float>) {
    return false;
  } else {
    const auto& [batch, m, n, k] = problem.size;
    if (device_info().compute_capability != 90 || !hopper_tf32_serves(problem.size)) return false;
    // 256 columns a tile take fewer bytes a product; 128 where that would leave half of the
    // multiprocessors without a tile, or half of every tile outside c.
    const bool enough = TileGrid<128, 256>(problem.size).count * 2 > device_info().multiprocessors;
    const int64_t rest = n % 256;
    if (enough && (rest == 0 || rest > 128 || n > 1024)) {
      start<256>(context, problem);
    } else {
      start<128>(context, problem);
    }
    return true;
  }
}

template bool matmul_hopper_tf32(Context&, const MatmulProblem<float>&);
template bool matmul_hopper_tf32(Context&, const MatmulProblem<double>&);
template bool matmul_hopper_tf32(Context&, const MatmulProblem<bfloat16>&);
template bool matmul_hopper_tf32(Context&, const MatmulProblem<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
