// SPDX-License-Identifier: MIT
// The classes of a row lie `inner` elements apart: what every rung does where inner is not 1.
//
// Math:        online softmax, as in rung 2.
// Shapes:      logits (outer, classes, inner); row (o, i) is a column of the matrix of o.
// Parallelism: a block has 32 neighbouring columns; each of its 8 warps takes every eighth group of
//              4 classes of all of them, and the slices meet in shared memory.
// Memory:      2 reads and 1 write of every logit, coalesced along inner where that is 32 or more;
//              below it a warp's access touches 32 / inner places, and the sectors it leaves in
//              part unread are asked for again, from L1, with the next classes.
// Source:      rung 2, turned by a right angle.
#include "row.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kSlices = 8;
constexpr int kThreads = kSlices * kWarpSize;
constexpr int kGroup = 4;  // classes that a thread loads at a time

template <class A>
struct Group {
  A at[kGroup];
};

template <class T>
__device__ inline Accumulate<T> soft_mass_of_class(const CrossEntropyArguments<T>& a,
                                                   const CrossEntropyRow<T>& r, int64_t c) {
  Accumulate<T> mass = a.floor;
  if (r.q != nullptr) mass = fma(a.keep, widen(r.q[c * a.shape.inner]), a.floor);
  return a.weight == nullptr ? mass : mass * widen(a.weight[c]);
}

template <class T, bool kSoft>
__global__ void __launch_bounds__(kThreads, 1)
    cross_entropy_columns_kernel(CrossEntropyArguments<T> a) {
  grid_dependency_wait();
  using A = Accumulate<T>;
  using Team = ColumnTeam<kSlices>;
  const int64_t classes = a.shape.classes, inner = a.shape.inner;
  const int column = static_cast<int>(threadIdx.x) % kWarpSize;
  const int slice = static_cast<int>(threadIdx.x) / kWarpSize;
  for (int64_t first = int64_t{blockIdx.x} * kWarpSize; first < a.rows;
       first += int64_t{gridDim.x} * kWarpSize) {
    // A column beyond the last takes part in the barriers only.
    const int64_t row = first + column;
    const bool exists = row < a.rows;
    CrossEntropyRow<T> r{};
    r.target = kIgnoredClass;
    if (exists) r = find_row(a, row, row / inner * classes * inner + row % inner, inner);
    RowSums<T, kSoft> sums;
    for (int64_t begin = slice * kGroup; r.counts() && begin < classes; begin += kSlices * kGroup) {
      Group<A> x;
#pragma unroll
      for (int j = 0; j < kGroup; ++j) {
        x.at[j] = begin + j < classes ? widen(r.x[(begin + j) * inner]) : kLowest<A>;
      }
      sums.add(
          x.at, [&](int j) { return begin + j < classes; },
          [&] {
            Group<A> mass;
#pragma unroll
            for (int j = 0; j < kGroup; ++j) {
              mass.at[j] = begin + j < classes ? soft_mass_of_class(a, r, begin + j) : A(0);
            }
            return mass;
          });
    }
    // Its barriers also keep a gradient in place from the target's logit until all have read it.
    const RowEnd<A> end = end_row<Team>(r, sums);
    for (int64_t begin = slice * kGroup; r.dx != nullptr && begin < classes;
         begin += kSlices * kGroup) {
#pragma unroll
      for (int j = 0; j < kGroup; ++j) {
        const int64_t c = begin + j;
        if (c >= classes) continue;
        A g = 0;
        if (r.counts()) {
          g = exp_of_negative<T>(widen(r.x[c * inner]) - end.highest) * end.factor;
          if constexpr (kSoft) g -= soft_mass_of_class(a, r, c) * r.scale;
          if (c == r.target) g -= end.share;
        }
        r.dx[c * inner] = narrow<T>(g);
      }
    }
    if (exists && slice == 0) store_loss(a, r, row, end.loss);
  }
}

}  // namespace

template <class T>
bool cross_entropy_columns(Context& context, const CrossEntropyArguments<T>& a) {
  const int64_t blocks = (a.rows + kWarpSize - 1) / kWarpSize;
  const int64_t most = std::numeric_limits<int32_t>::max();
  launch_next(
      a.soft ? cross_entropy_columns_kernel<T, true> : cross_entropy_columns_kernel<T, false>,
      static_cast<unsigned>(std::min(blocks, most)), kThreads, 0, context, a);
  return true;
}

template bool cross_entropy_columns(Context&, const CrossEntropyArguments<float>&);
template bool cross_entropy_columns(Context&, const CrossEntropyArguments<double>&);
template bool cross_entropy_columns(Context&, const CrossEntropyArguments<bfloat16>&);
template bool cross_entropy_columns(Context&, const CrossEntropyArguments<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
