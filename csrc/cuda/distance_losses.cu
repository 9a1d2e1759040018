// SPDX-License-Identifier: MIT
// Math:        ops.hpp; formulas in ../row_losses.hpp.
// Shapes:      rows of `size` elements: three of a triplet, two of a cosine; a label a row.
// Parallelism: a warp or a block a row (row_losses.cuh).
// Memory:      coalesced. With a gradient the rows are read twice, for the largest difference three
//              times, then from L1 or L2; each gradient is written once. A norm other than 1, 2 and
//              infinity is computed in double, a power an element.
#include "class_index.cuh"
#include "row_losses.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kDifferences = 3;

template <class T>
struct TripletArguments {
  Triplet<T> gradients;  // each or null
  Triplet<const T> inputs;
  double margin, p;
  T eps;
  bool swap;
};

// A norm's own type.
template <class T, Norm kNorm>
struct NormType {
  using type = Accumulate<T>;
};
template <class T>
struct NormType<T, Norm::any> {
  using type = double;
};

// f(slot, j, differences) for the elements of a row that the thread owns.
template <class A, class T, class Team, class F>
__device__ inline void for_differences(const TripletArguments<T>& a, int64_t offset,
                                       const RowSlot<T, Team>& slot, F f) {
  const Packet<T> x = slot.load(a.inputs.anchor + offset);
  const Packet<T> y = slot.load(a.inputs.positive + offset);
  const Packet<T> z = slot.load(a.inputs.negative + offset);
#pragma unroll
  for (int j = 0; j < kPacket<T>; ++j) {
    const A d[kDifferences] = {x.at[j] - y.at[j] + a.eps, x.at[j] - z.at[j] + a.eps,
                               a.swap ? y.at[j] - z.at[j] + a.eps : T(0)};
    f(j, d);
  }
}

template <class T, class Team, Norm kNorm>
__global__ void __launch_bounds__(kRowThreads, 1)
    triplet_margin_kernel(TripletArguments<T> a, RowOutput<T> out, RowSlots<T, Team> slots) {
  grid_dependency_wait();
  using A = typename NormType<T, kNorm>::type;
  for_team_rows<Team>(out.rows, [&](int64_t row) {
    const int64_t offset = row * slots.n;
    A norm[kDifferences] = {}, factor[kDifferences], maxima[kDifferences] = {};
    for_row_slots(slots, [&](const auto& slot) {
      for_differences<A>(a, offset, slot, [&](int j, const A(&d)[kDifferences]) {
        if (!slot.has(j)) return;
#pragma unroll
        for (int k = 0; k < kDifferences; ++k) {
          const A term = norm_term<kNorm>(d[k], a.p);
          norm[k] = kNorm == Norm::infinity ? max(norm[k], term) : norm[k] + term;
        }
      });
    });
#pragma unroll
    for (int k = 0; k < kDifferences; ++k) {
      norm[k] = kNorm == Norm::infinity ? Team::max(norm[k]) : Team::sum(norm[k]);
      norm[k] = norm_end<kNorm>(norm[k], a.p);
    }
    const TripletEnd<A> end = triplet_end<A>(static_cast<A>(a.margin), norm[0], norm[1], norm[2],
                                             a.swap, static_cast<A>(out.factor(row)));
    if (Team::thread() == 0) out.put(row, static_cast<Accumulate<T>>(end.loss));
    const auto [da, dp, dn] = a.gradients;
    if (da == nullptr && dp == nullptr && dn == nullptr) return;
    if constexpr (kNorm == Norm::infinity) {
      for_row_slots(slots, [&](const auto& slot) {
        for_differences<A>(a, offset, slot, [&](int j, const A(&d)[kDifferences]) {
#pragma unroll
          for (int k = 0; k < kDifferences; ++k) {
            if (slot.has(j) && abs(d[k]) == norm[k]) maxima[k] += 1;
          }
        });
      });
#pragma unroll
      for (int k = 0; k < kDifferences; ++k) maxima[k] = Team::sum(maxima[k]);
    }
    const A up[kDifferences] = {end.near, end.far, end.between};
#pragma unroll
    for (int k = 0; k < kDifferences; ++k) {
      factor[k] = kNorm == Norm::any ? up[k] : norm_factor<kNorm>(up[k], norm[k], maxima[k]);
    }
    for_row_slots(slots, [&](const auto& slot) {
      Packet<T> x, y, z;
      for_differences<A>(a, offset, slot, [&](int j, const A(&d)[kDifferences]) {
        A u[kDifferences];
#pragma unroll
        for (int k = 0; k < kDifferences; ++k) {
          u[k] = a.swap || k < 2 ? norm_slope<kNorm>(d[k], factor[k], norm[k], a.p) : A(0);
        }
        x.at[j] = static_cast<T>(u[0] + u[1]);
        y.at[j] = static_cast<T>(u[2] - u[0]);
        z.at[j] = static_cast<T>(-u[1] - u[2]);
      });
      if (a.gradients.anchor != nullptr) slot.store(a.gradients.anchor + offset, x);
      if (a.gradients.positive != nullptr) slot.store(a.gradients.positive + offset, y);
      if (a.gradients.negative != nullptr) slot.store(a.gradients.negative + offset, z);
    });
  });
}

template <class T>
struct CosineArguments {
  T* dinput1;  // or null
  T* dinput2;  // or null
  const T* input1;
  const T* input2;
  const T* signs;    // the rows' labels, or null:
  IndexView labels;  // these
  Accumulate<T> margin;

  __device__ int label(int64_t row) const {
    if (signs != nullptr) return signs[row] == 1 ? 1 : signs[row] == -1 ? -1 : 0;
    const int64_t label = index_at(labels, row);
    return label == 1 ? 1 : label == -1 ? -1 : 0;
  }
};

template <class T, class Team>
__global__ void __launch_bounds__(kRowThreads, 1)
    cosine_embedding_kernel(CosineArguments<T> a, RowOutput<T> out, RowSlots<T, Team> slots) {
  grid_dependency_wait();
  using A = Accumulate<T>;
  for_team_rows<Team>(out.rows, [&](int64_t row) {
    const int64_t offset = row * slots.n;
    A dot = 0, square1 = 0, square2 = 0;
    for_row_slots(slots, [&](const auto& slot) {
      // Elements that it has not are zero.
      const Packet<T> x = slot.load(a.input1 + offset), y = slot.load(a.input2 + offset);
#pragma unroll
      for (int j = 0; j < kPacket<T>; ++j) {
        dot += x.at[j] * y.at[j];
        square1 += x.at[j] * x.at[j];
        square2 += y.at[j] * y.at[j];
      }
    });
    const CosineEnd<A> end = cosine_end<A>(Team::sum(dot), Team::sum(square1), Team::sum(square2),
                                           a.label(row), a.margin, out.factor(row));
    if (Team::thread() == 0) out.put(row, end.loss);
    if (a.dinput1 == nullptr && a.dinput2 == nullptr) return;
    for_row_slots(slots, [&](const auto& slot) {
      Packet<T> x = slot.load(a.input1 + offset), y = slot.load(a.input2 + offset);
#pragma unroll
      for (int j = 0; j < kPacket<T>; ++j) {
        const A first = x.at[j], second = y.at[j];
        x.at[j] = fma(end.cross, second, end.own1 * first);
        y.at[j] = fma(end.cross, first, end.own2 * second);
      }
      if (a.dinput1 != nullptr) slot.store(a.dinput1 + offset, x);
      if (a.dinput2 != nullptr) slot.store(a.dinput2 + offset, y);
    });
  });
}

template <class T, Norm kNorm>
void start_triplets(Context& context, const TripletArguments<T>& a, const RowOutput<T>& out,
                    int64_t size) {
  const auto [da, dp, dn] = a.gradients;
  const auto [x, y, z] = a.inputs;
  launch_rows(context, triplet_margin_kernel<T, WarpRow, kNorm>,
              triplet_margin_kernel<T, BlockRow, kNorm>, a, out, size,
              packet_aligned(da, dp, dn, x, y, z));
}

}  // namespace

template <class T>
void triplet_margin_loss(Context& context, T* loss, Triplet<T> gradients, const T* grad_output,
                         Triplet<const T> inputs, RowShape shape, TripletMargin options,
                         Reduction reduction) {
  WorkspaceScope scope(context);
  const RowOutput<T> out = row_output(context, loss, grad_output, shape.rows, reduction);
  const TripletArguments<T> a{
      gradients, inputs, options.margin, options.p, static_cast<T>(options.eps), options.swap};
  switch (norm_of(options.p)) {
    case Norm::one:
      start_triplets<T, Norm::one>(context, a, out, shape.size);
      break;
    case Norm::two:
      start_triplets<T, Norm::two>(context, a, out, shape.size);
      break;
    case Norm::infinity:
      start_triplets<T, Norm::infinity>(context, a, out, shape.size);
      break;
    case Norm::any:
      start_triplets<T, Norm::any>(context, a, out, shape.size);
      break;
  }
  finish_rows(context, loss, out);
}

template <class T>
void cosine_embedding_loss(Context& context, T* loss, T* dinput1, T* dinput2, const T* grad_output,
                           const T* input1, const T* input2, const T* signs, IndexView labels,
                           RowShape shape, double margin, Reduction reduction) {
  WorkspaceScope scope(context);
  const RowOutput<T> out = row_output(context, loss, grad_output, shape.rows, reduction);
  launch_rows(context, cosine_embedding_kernel<T, WarpRow>, cosine_embedding_kernel<T, BlockRow>,
              CosineArguments<T>{dinput1, dinput2, input1, input2, signs, labels,
                                 static_cast<Accumulate<T>>(margin)},
              out, shape.size, packet_aligned(dinput1, dinput2, input1, input2));
  finish_rows(context, loss, out);
}

#define TILEGRAD_INSTANTIATE(T)                                                           \
  template void triplet_margin_loss(Context&, T*, Triplet<T>, const T*, Triplet<const T>, \
                                    RowShape, TripletMargin, Reduction);                  \
  template void cosine_embedding_loss(Context&, T*, T*, T*, const T*, const T*, const T*, \
                                      const T*, IndexView, RowShape, double, Reduction);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::TILEGRAD_BACKEND
