// SPDX-License-Identifier: MIT
// cross_entropy: for a mean the weights of the targets are added up first, then a rung of the
// ladder (cross_entropy/) gives every row's loss and gradient, then the losses are added.
//
// Math:        ops.hpp; of a row: cross_entropy/row.cuh.
// Shapes:      targets and losses (rows), rows = outer * inner.
// Parallelism: that of a sum in row_sums.cuh.
// Memory:      a target is read once more for the mean; a row's loss is written and read once.
#include "../check.hpp"
#include "cross_entropy/row.cuh"
#include "cross_entropy_choice.hpp"
#include "row_sums.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

// The choice at its edges: what the lanes hold, what shared memory holds, columns.
static_assert(held_row(32, 4, 0).hold == Hold::registers_8_lanes);
static_assert(held_row(33, 4, 0).hold == Hold::registers_warp);
static_assert(held_row(513, 4, 0).hold == Hold::none);
static_assert(held_row(513, 4, 48 << 10).hold == Hold::shared_block);
static_assert(longest_held_row(4, 227 << 10) == 57344 && longest_held_row(2, 64 << 10) == 28672);
constexpr CrossEntropyRung rung_of(int64_t classes, size_t bytes, int capability = 90) {
  return choose_cross_entropy(classes, 1, bytes, (capability < 80 ? 64 : 227) << 10, capability);
}
static_assert(longest_cluster_row(4, 227 << 10) == 425984);
static_assert(rung_of(26624, 4) == CrossEntropyRung::one_pass);
static_assert(rung_of(26625, 4) == CrossEntropyRung::cluster);
static_assert(rung_of(57344, 4, 80) == CrossEntropyRung::one_pass);
static_assert(rung_of(57345, 4, 80) == CrossEntropyRung::block_row);
static_assert(rung_of(425984, 4) == CrossEntropyRung::cluster);
static_assert(rung_of(425985, 4) == CrossEntropyRung::block_row);
static_assert(cluster_row(53248, 4, 227 << 10).blocks == 2);
static_assert(cluster_row(53249, 4, 227 << 10).blocks == 4);
static_assert(cluster_row(128256, 2, 227 << 10).blocks == 4);
static_assert(cluster_row(128256, 2, 227 << 10).piece == 32256);
static_assert(cluster_row(262144, 4, 227 << 10).blocks == 8);
static_assert(cluster_row(262144, 4, 227 << 10).threads == kLargeClusterBlock);
static_assert(choose_cross_entropy(10, 3, 4, 227 << 10, 90) == CrossEntropyRung::columns);

// What a mean divides by, and with it the factor of all gradients.
template <class T>
struct StoreScale {
  double* denominator;
  Accumulate<T>* scale;
  const T* grad_output;
  double known;  // the sum without the terms

  __device__ void operator()(double sum) const {
    sum += known;
    const double gradient = grad_output == nullptr ? 1.0 : static_cast<double>(widen(*grad_output));
    *denominator = sum;
    *scale = static_cast<Accumulate<T>>(gradient / sum);
  }
};

template <class T>
struct Rung {
  std::string_view name;
  bool (*start)(Context&, const CrossEntropyArguments<T>&);
};

// In the order of CrossEntropyRung.
template <class T>
constexpr Rung<T> kRungs[] = {
    {"three_pass", cross_entropy_three_pass<T>}, {"online_warp", cross_entropy_online_warp<T>},
    {"block_row", cross_entropy_block_row<T>},   {"one_pass", cross_entropy_one_pass<T>},
    {"cluster", cross_entropy_cluster<T>},       {"columns", cross_entropy_columns<T>}};
constexpr std::string_view kRungNames =
    "'three_pass', 'online_warp', 'block_row', 'one_pass', 'cluster', 'columns'";

// A rung that is named runs, or the error says what it lacks.
template <class T>
void check_variant(std::string_view variant, ClassShape shape) {
  if (variant.empty()) return;
  const auto* found = std::find_if(std::begin(kRungs<T>), std::end(kRungs<T>),
                                   [&](const Rung<T>& rung) { return rung.name == variant; });
  check(found != std::end(kRungs<T>), "cross_entropy: variant must be one of {}; got '{}'",
        kRungNames, variant);
  if (variant == "columns") return;
  check(shape.inner == 1,
        "cross_entropy: variant '{}' reads rows whose classes lie next to each other ('columns' "
        "reads all); got classes {} elements apart",
        variant, shape.inner);
  const DeviceInfo& device = device_info();
  const bool is_cluster = variant == "cluster";
  const int capability = device.compute_capability;
  check(!is_cluster || capability >= 90,
        "cross_entropy: variant 'cluster' needs compute capability 9.0 or later ('block_row' runs "
        "on all); got {}.{}",
        capability / 10, capability % 10);
  if (!is_cluster && variant != "one_pass") return;
  const int64_t most = is_cluster ? longest_cluster_row(sizeof(T), device.shared_bytes)
                                  : longest_held_row(sizeof(T), device.shared_bytes);
  check(shape.classes <= most,
        "cross_entropy: variant '{}' holds at most {} classes of this dtype on this device "
        "('block_row' holds any number); got {}",
        variant, most, shape.classes);
}

template <class T>
void run_rung(Context& context, const CrossEntropyArguments<T>& a, std::string_view variant) {
  const DeviceInfo& device = device_info();
  const CrossEntropyRung choice = choose_cross_entropy(
      a.shape.classes, a.shape.inner, sizeof(T), device.shared_bytes, device.compute_capability);
  if (variant.empty()) variant = kRungs<T>[static_cast<int>(choice)].name;
  for (const Rung<T>& rung : kRungs<T>) {
    if (rung.name != variant) continue;
    if (!rung.start(context, a)) {
      throw std::logic_error(format("cross_entropy: variant '{}' did not start", variant));
    }
  }
}

}  // namespace

template <class T>
void cross_entropy(Context& context, T* loss, T* dlogits, const T* grad_output,
                   const CrossEntropy<T>& problem, int64_t* bad_row, std::string_view variant) {
  using A = Accumulate<T>;
  const ClassShape shape = problem.shape;
  check_variant<T>(variant, shape);
  *bad_row = -1;
  const bool by_index = problem.indices.data != nullptr;
  const bool by_row = problem.reduction == Reduction::none;
  const bool is_mean = problem.reduction == Reduction::mean;
  const double smoothing = problem.label_smoothing;

  WorkspaceScope scope(context);
  CrossEntropyArguments<T> a{};
  a.loss = by_row ? loss : nullptr;
  a.dlogits = dlogits;
  a.logits = problem.logits;
  a.probabilities = by_index ? nullptr : problem.probabilities;
  a.weight = problem.weight;
  a.indices = problem.indices;
  a.shape = shape;
  a.rows = shape.outer * shape.inner;
  a.ignore_index = problem.ignore_index;
  a.grad_output = grad_output;
  a.grad_step = by_row ? 1 : 0;
  a.keep = static_cast<A>(1 - smoothing);
  a.floor = static_cast<A>(smoothing / static_cast<double>(std::max<int64_t>(shape.classes, 1)));
  a.soft = !by_index || smoothing != 0;
  a.aligned = packet_aligned(a.logits, a.dlogits, a.probabilities, a.weight);
  if (loss != nullptr && !by_row) a.row_loss = context.workspace->take<A>(a.rows);

  double* denominator = nullptr;
  if (is_mean) {
    denominator = context.workspace->take<double>(1);
    A* scale = context.workspace->take<A>(1);
    a.scale = scale;
    // Each row of probabilities counts one; without classes a mean is over nothing.
    const double known = by_index || shape.classes == 0 ? 0 : static_cast<double>(a.rows);
    const ClassWeight<T> weight{a.indices, a.weight, shape.classes, a.ignore_index};
    sum_rows(context, weight, StoreScale<T>{denominator, scale, grad_output, known},
             by_index ? a.rows : 0);
  }
  if (a.loss != nullptr || a.row_loss != nullptr || dlogits != nullptr) {
    run_rung(context, a, variant);
  }
  if (a.row_loss != nullptr) {
    sum_rows(context, Element<A>{a.row_loss}, StoreLoss<T>{loss, denominator}, a.rows);
  }
}

template void cross_entropy(Context&, float*, float*, const float*, const CrossEntropy<float>&,
                            int64_t*, std::string_view);
template void cross_entropy(Context&, double*, double*, const double*, const CrossEntropy<double>&,
                            int64_t*, std::string_view);
template void cross_entropy(Context&, bfloat16*, bfloat16*, const bfloat16*,
                            const CrossEntropy<bfloat16>&, int64_t*, std::string_view);
template void cross_entropy(Context&, float16*, float16*, const float16*,
                            const CrossEntropy<float16>&, int64_t*, std::string_view);

}  // namespace tilegrad::TILEGRAD_BACKEND
