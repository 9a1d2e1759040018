// SPDX-License-Identifier: MIT
// Math:        ops.hpp; formulas in ../row_losses.hpp.
// Shapes:      input and its gradient (rows, size); a class or a list of classes a row.
// Parallelism: a warp or a block a row (row_losses.cuh). A list goes through the row once an entry.
// Memory:      coalesced. Labels and one class a row: each operand is read once and the gradients
//              leave with the loss. Lists: a thread reads the row's listed classes, one sector a
//              request, for each of its packets; for the gradient the row without them waits in
//              workspace, and an entry's sum is added to its element by the thread that owns it.
#include "class_index.cuh"
#include "row_losses.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

template <class T>
struct MultiMarginArguments {
  T* dinput;  // or null
  const T* input;
  IndexView target;
  const T* weight;  // (size) or null
  Accumulate<T> margin;
  Hinge hinge;
};

template <class T, class Team>
__global__ void __launch_bounds__(kRowThreads, 1)
    multi_margin_kernel(MultiMarginArguments<T> a, RowOutput<T> out, RowSlots<T, Team> slots) {
  grid_dependency_wait();
  using A = Accumulate<T>;
  for_team_rows<Team>(out.rows, [&](int64_t row) {
    const T* x = a.input + row * slots.n;
    T* dx = row_at(a.dinput, row * slots.n);
    const int64_t target = index_at(a.target, row);
    const bool known = target >= 0 && target < slots.n;
    const A base = known ? a.margin - x[target] : A(0);
    const A weight = known && a.weight != nullptr ? a.weight[target] : A(1);
    const A share = weight / static_cast<A>(slots.n);
    const A factor = share * out.factor(row);
    A value = 0, slope = 0;
    for_row_slots(slots, [&](const auto& slot) {
      Packet<T> packet = slot.load(x);
      const int hit = slot.find(target);
#pragma unroll
      for (int j = 0; j < kPacket<T>; ++j) {
        const A z = base + packet.at[j];
        const bool counts = known && slot.has(j) && slot.step(j) != hit;
        const A one = counts ? a.hinge.slope(z) : A(0);
        value += counts ? a.hinge.value(z) : A(0);
        slope += one;
        packet.at[j] = one == 0 ? T(0) : one * factor;
      }
      if (dx != nullptr) slot.store(dx, packet);
    });
    value = Team::sum(value);
    slope = Team::sum(slope);
    if (dx != nullptr && known && owns(slots, target)) dx[target] = -(slope * factor);
    if (Team::thread() == 0) out.put(row, known ? value * share : static_cast<A>(NAN));
  });
}

template <class T>
struct MultilabelArguments {
  T* dinput;  // or null
  T* rest;    // like input, where there is a gradient: -inf at the listed classes
  const T* input;
  IndexView target;
};

// The classes before the first -1 and whether all of the row's entries are in [-1, classes).
struct List {
  int64_t length;
  bool valid;
};
template <class Team>
__device__ inline List read_list(const IndexView& target, int64_t offset, int64_t classes) {
  double bad = 0, end = -static_cast<double>(classes);  // the largest of minus the end
  for (int64_t k = Team::thread(); k < classes; k += Team::kThreads) {
    const int64_t entry = index_at(target, offset + k);
    if (entry < -1 || entry >= classes) bad = 1;
    if (entry == -1) end = max(end, -static_cast<double>(k));
  }
  return {static_cast<int64_t>(-Team::max(end)), Team::max(bad) == 0};
}

template <class T, class Team>
__global__ void __launch_bounds__(kRowThreads, 1)
    multilabel_margin_kernel(MultilabelArguments<T> a, RowOutput<T> out, RowSlots<T, Team> slots) {
  grid_dependency_wait();
  using A = Accumulate<T>;
  constexpr Hinge kHinge;
  for_team_rows<Team>(out.rows, [&](int64_t row) {
    const int64_t n = slots.n, offset = row * n;
    const T* x = a.input + offset;
    T* dx = row_at(a.dinput, offset);
    T* rest = row_at(a.rest, offset);
    const auto [length, valid] = read_list<Team>(a.target, offset, n);
    const int64_t count = valid ? length : 0;
    const A share = A(1) / static_cast<A>(n), factor = share * out.factor(row);
    A value = 0;
    for_row_slots(slots, [&](const auto& slot) {
      Packet<T> packet = slot.load(x), gradient{};
      bool listed[kPacket<T>] = {};
      A sums[kPacket<T>] = {}, slopes[kPacket<T>] = {};
      for (int64_t k = 0; k < count; ++k) {
        const int64_t entry = index_at(a.target, offset + k);
        const int hit = slot.find(entry);
        const A base = A(1) - x[entry];
#pragma unroll
        for (int j = 0; j < kPacket<T>; ++j) {
          const A z = base + packet.at[j];
          listed[j] = listed[j] || slot.step(j) == hit;
          sums[j] += kHinge.value(z);
          slopes[j] += kHinge.slope(z);
        }
      }
#pragma unroll
      for (int j = 0; j < kPacket<T>; ++j) {
        if (slot.has(j) && !listed[j]) value += sums[j];
        gradient.at[j] = listed[j] || slopes[j] == 0 ? T(0) : slopes[j] * factor;
        if (listed[j]) packet.at[j] = kLowest<A>;
      }
      if (dx == nullptr) return;
      slot.store(dx, gradient);
      slot.store(rest, packet);
    });
    value = Team::sum(value);
    for (int64_t k = 0; dx != nullptr && k < count; ++k) {
      const int64_t entry = index_at(a.target, offset + k);
      const A base = A(1) - x[entry];
      A reached = 0;  // the classes within the margin of this entry
      for_row_slots(slots, [&](const auto& slot) {
        const Packet<T> packet = slot.load(rest);
#pragma unroll
        for (int j = 0; j < kPacket<T>; ++j) {
          if (slot.has(j)) reached += kHinge.slope(base + packet.at[j]);
        }
      });
      reached = Team::sum(reached);
      if (reached > 0 && owns(slots, entry)) dx[entry] -= reached * factor;
    }
    if (Team::thread() == 0) out.put(row, valid ? value * share : static_cast<A>(NAN));
  });
}

template <class T>
struct LabelArguments {
  T* dinput;   // or null
  T* dtarget;  // or null
  const T* input;
  const T* target;
  const T* weight;  // rows weight_stride apart, or null
  int64_t weight_stride;
};

template <class T, class Team>
__global__ void __launch_bounds__(kRowThreads, 1)
    multilabel_soft_margin_kernel(LabelArguments<T> a, RowOutput<T> out, RowSlots<T, Team> slots) {
  grid_dependency_wait();
  using A = Accumulate<T>;
  for_team_rows<Team>(out.rows, [&](int64_t row) {
    const int64_t offset = row * slots.n;
    const A factor = out.factor(row) / static_cast<A>(slots.n);
    A value = 0;
    for_row_slots(slots, [&](const auto& slot) {
      Packet<T> x = slot.load(a.input + offset), t = slot.load(a.target + offset), weight{};
      if (a.weight != nullptr) weight = slot.load(a.weight + row * a.weight_stride);
#pragma unroll
      for (int j = 0; j < kPacket<T>; ++j) {
        const auto terms = LabelCrossEntropy::terms<A>(x.at[j], t.at[j]);
        const A w = a.weight == nullptr ? A(1) : A(weight.at[j]), scale = w * factor;
        if (slot.has(j)) value += w * terms.loss;
        t.at[j] = -(scale * x.at[j]);
        x.at[j] = scale * terms.dinput;
      }
      if (a.dinput != nullptr) slot.store(a.dinput + offset, x);
      if (a.dtarget != nullptr) slot.store(a.dtarget + offset, t);
    });
    value = Team::sum(value);
    if (Team::thread() == 0) out.put(row, value / static_cast<A>(slots.n));
  });
}

}  // namespace

template <class T>
void multi_margin_loss(Context& context, T* loss, T* dinput, const T* grad_output, const T* input,
                       IndexView target, const T* weight, RowShape shape, MultiMargin options,
                       Reduction reduction, int64_t* bad_row) {
  *bad_row = -1;
  WorkspaceScope scope(context);
  const RowOutput<T> out = row_output(context, loss, grad_output, shape.rows, reduction);
  const MultiMarginArguments<T> a{
      dinput, input, target, weight, static_cast<Accumulate<T>>(options.margin), {options.squared}};
  launch_rows(context, multi_margin_kernel<T, WarpRow>, multi_margin_kernel<T, BlockRow>, a, out,
              shape.size, packet_aligned(dinput, input));
  finish_rows(context, loss, out);
}

template <class T>
void multilabel_margin_loss(Context& context, T* loss, T* dinput, const T* grad_output,
                            const T* input, IndexView target, RowShape shape, Reduction reduction,
                            int64_t* bad_row) {
  *bad_row = -1;
  WorkspaceScope scope(context);
  const RowOutput<T> out = row_output(context, loss, grad_output, shape.rows, reduction);
  T* rest = dinput == nullptr ? nullptr : context.workspace->take<T>(shape.rows * shape.size);
  launch_rows(context, multilabel_margin_kernel<T, WarpRow>, multilabel_margin_kernel<T, BlockRow>,
              MultilabelArguments<T>{dinput, rest, input, target}, out, shape.size,
              packet_aligned(dinput, rest, input));
  finish_rows(context, loss, out);
}

template <class T>
void multilabel_soft_margin_loss(Context& context, T* loss, T* dinput, T* dtarget,
                                 const T* grad_output, const T* input, const T* target,
                                 const T* weight, int64_t weight_stride, RowShape shape,
                                 Reduction reduction) {
  WorkspaceScope scope(context);
  const RowOutput<T> out = row_output(context, loss, grad_output, shape.rows, reduction);
  launch_rows(context, multilabel_soft_margin_kernel<T, WarpRow>,
              multilabel_soft_margin_kernel<T, BlockRow>,
              LabelArguments<T>{dinput, dtarget, input, target, weight, weight_stride}, out,
              shape.size, packet_aligned(dinput, dtarget, input, target, weight));
  finish_rows(context, loss, out);
}

#define TILEGRAD_INSTANTIATE(T)                                                                   \
  template void multi_margin_loss(Context&, T*, T*, const T*, const T*, IndexView, const T*,      \
                                  RowShape, MultiMargin, Reduction, int64_t*);                    \
  template void multilabel_margin_loss(Context&, T*, T*, const T*, const T*, IndexView, RowShape, \
                                       Reduction, int64_t*);                                      \
  template void multilabel_soft_margin_loss(Context&, T*, T*, T*, const T*, const T*, const T*,   \
                                            const T*, int64_t, RowShape, Reduction);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::TILEGRAD_BACKEND
