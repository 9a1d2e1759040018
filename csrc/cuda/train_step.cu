// SPDX-License-Identifier: MIT
// A training step of a small network as one kernel.
//
// Math:        train_step.hpp.
// Shapes:      up to kMostStepLayers layers; products of at most kMostProducts multiply-adds.
// Parallelism: a grid whose blocks are resident at once, one a multiprocessor. Phases follow
//              each other behind a barrier of the grid, 2 layers - 1 of them
//              (train_step/schedule.hpp); the items of a phase are dealt out to the blocks in turn.
//              A weight changes in the tile of its gradient, one phase after its last reader. Every
//              sum has an order of its own: which block makes it does not matter.
// Memory:      what lies between layers stays in L2; a weight is read twice or three times and
//              written once, its gradient never. Accesses: tile.cuh, finish.cuh, head.cuh.
// Source:      persistent kernels of recurrent networks: Diamos et al., ICML 2016.
#include "train_step.hpp"

#include <algorithm>

#include "grid_barrier.cuh"
#include "row_sums.cuh"
#include "train_step/head.cuh"
#include "train_step/schedule.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace step {
namespace {

constexpr int64_t kMostProducts = int64_t{1} << 29;  // above it a product fills the device alone
constexpr int64_t kMostRows = 1024;
constexpr int64_t kMostWidth = 8192;
constexpr size_t kSharedBytes = kTileFloats * sizeof(float);
constexpr int64_t kHeadFloats = kTileFloats - 2 * kMostStepClasses - 4;  // W and a row

template <class Options>
using Constants = decltype(constants_of<float>(Options{}, StepState{}));

template <class Options>
struct Arguments {
  NetworkStep step;
  Schedule schedule;
  Options options;
  const StepState* state;
  CrossEntropyArguments<float> loss;
  Prepared<Constants<Options>>* prepared;
  GridBarrier* barrier;
  bool is_mean, weight_fits;
};

// f(TileShape{}) of that size.
template <class F>
__device__ inline auto with_shape(Tile size, const F& f) {
  switch (size) {
    case Tile::small:
      return f(SmallTile{});
    case Tile::medium:
      return f(MediumTile{});
    default:
      return f(LargeTile{});
  }
}

// The block's tiles of a product: items first, first + gridDim.x, ...; use(sums, tile) for each.
// The ring of the next fills while the sums of one are used; start() and finish() stand in the code
// once for each shape of tile and operands.
template <bool kAAlongP, bool kBAlongP, class Use>
__device__ inline void run_product(float* shared, const Run& run, int first, const Operand& a,
                                   const Operand& b, int64_t length, const Use& use) {
  if (first >= run.items) return;
  const auto with_product = [&](const auto& f) {
    with_shape(run.tile, [&](auto shape) {
      f(TileProduct<decltype(shape), kAAlongP, kBAlongP>(shared, a, b, static_cast<int>(length)));
    });
  };
  TileSums sums{};
  with_product([&](const auto& product) { sums = product.sums(shared); });
  const int n = 1 << sums.log_n, across = (b.count + n - 1) / n;
  const auto tile_of = [&](int item) {
    return TileOf{item / across * sums.m, item % across * n, a.count, b.count};
  };
  TileOf next = tile_of(first);
  // Who read the shared memory before is done with it.
  __syncthreads();
  const auto stride = static_cast<int>(gridDim.x);
  for (int item = first - stride; item < run.items; item += stride) {
    const TileOf tile = next;
    if (item >= first) {
      with_product([&](const auto& product) { product.finish(tile.i, tile.j); });
    }
    if (item + stride < run.items) {
      next = tile_of(item + stride);
      with_product([&](const auto& product) { product.start(next.i, next.j); });
    }
    if (item >= first) use(sums, tile);
  }
}

// Before the first reader of the divisor: the head.
template <class Options>
__device__ inline void prepare(float* shared, const Arguments<Options>& a) {
  const ClassWeight<float> weight{a.loss.indices, a.loss.weight, a.loss.shape.classes,
                                  a.loss.ignore_index};
  const double sum = sum_of_rows(shared, a.is_mean ? a.step.rows : 0, weight);
  if (threadIdx.x != 0) return;
  const double divisor = a.is_mean ? sum : 1;
  *a.prepared = {constants_of<float>(a.options, *a.state), divisor,
                 static_cast<float>(1 / divisor)};
}

template <class Options>
__device__ inline void add_losses(float* shared, const Arguments<Options>& a) {
  const double sum = sum_of_rows(shared, a.step.rows, Element<float>{a.loss.row_loss});
  if (threadIdx.x == 0) StoreLoss<float>{a.step.loss_value, &a.prepared->denominator}(sum);
}

// The items first, first + gridDim.x, ... of a run.
template <class Options>
__device__ inline void run_items(float* shared, const Arguments<Options>& a, const Run& run,
                                 int first) {
  const StepLayer& layer = a.step.layers[run.layer];
  const auto rows = static_cast<int>(a.step.rows);
  const auto stride = static_cast<int>(gridDim.x);
  switch (run.work) {
    case Work::prepare:
      if (first == 0) prepare(shared, a);
      break;
    case Work::forward:
      run_product<true, true>(
          shared, run, first, operand(layer.x, layer.in, rows),
          operand(layer.weight.data, layer.in, layer.out), layer.in,
          [&](const TileSums& sums, const TileOf& tile) { finish_forward(sums, tile, layer); });
      break;
    case Work::head:
      if (first < run.items) {
        Head head(shared, a.step, a.loss, a.weight_fits);
        for (int row = first; row < run.items; row += stride) head.row(row);
      }
      break;
    case Work::loss:
      if (first == 0) add_losses(shared, a);
      break;
    case Work::input_gradient:
      run_product<true, false>(shared, run, first, operand(layer.dz, layer.out, rows),
                               operand(layer.weight.data, layer.in, layer.in), layer.out,
                               [&](const TileSums& sums, const TileOf& tile) {
                                 finish_input_gradient(sums, tile, a.step.layers[run.layer - 1]);
                               });
      break;
    case Work::weight_update:
      run_product<false, false>(shared, run, first, operand(layer.dz, layer.out, layer.out),
                                operand(layer.x, layer.in, layer.in), rows,
                                [&](const TileSums& sums, const TileOf& tile) {
                                  finish_weight(sums, tile, layer.weight, a.prepared->constants);
                                });
      break;
    case Work::bias_update:
      for (int item = first; item < run.items; item += stride) {
        update_bias(shared, layer, rows, item * static_cast<int>(kBiasColumns),
                    a.prepared->constants);
      }
      break;
  }
}

template <class Options>
__global__ void __launch_bounds__(kThreads, 1)
    network_step_kernel(const __grid_constant__ Arguments<Options> a) {
  float* const shared = dynamic_smem<float>();
  const auto blocks = static_cast<int>(gridDim.x);
  for (int phase = 0; phase < a.schedule.phases; ++phase) {
    // What the phase before wrote is there for every block.
    if (phase > 0) grid_sync(a.barrier);
    // The phase's items are dealt out in turn, across its runs.
    int first = static_cast<int>(blockIdx.x);
    for (int r = a.schedule.first[phase]; r < a.schedule.first[phase + 1]; ++r) {
      const Run& run = a.schedule.runs[r];
      run_items(shared, a, run, first);
      if (first < run.items) first += (run.items - first + blocks - 1) / blocks * blocks;
      first -= run.items;
    }
  }
}

// But for the logits and their gradient, which are in shared memory.
CrossEntropyArguments<float> loss_arguments(const NetworkStep& network) {
  const CrossEntropy<float>& problem = network.loss;
  const double smoothing = problem.label_smoothing;
  CrossEntropyArguments<float> a{};
  a.weight = problem.weight;
  a.indices = problem.indices;
  a.shape = problem.shape;
  a.rows = network.rows;
  a.ignore_index = problem.ignore_index;
  a.keep = static_cast<float>(1 - smoothing);
  a.floor = static_cast<float>(smoothing / static_cast<double>(problem.shape.classes));
  a.soft = smoothing != 0;
  a.aligned = packet_aligned(problem.weight);
  return a;
}

}  // namespace
}  // namespace step

bool takes_network_step(const NetworkStep& network) {
  if (network.rows < 1 || network.rows > step::kMostRows || network.count < 1) return false;
  const DeviceInfo& device = device_info();
  if (device.compute_capability < 80 || device.shared_bytes < step::kSharedBytes) return false;
  int64_t products = 0;
  for (int l = 0; l < network.count; ++l) {
    const auto [in, out] = std::pair(network.layers[l].in, network.layers[l].out);
    if (in < 1 || out < 1 || in > step::kMostWidth || out > step::kMostWidth) return false;
    products += network.rows * in * out * (l == 0 ? 2 : 3);
  }
  return products <= step::kMostProducts &&
         network.layers[network.count - 1].out <= kMostStepClasses;
}

template <class Options>
void network_step(Context& context, const NetworkStep& network, const Options& options,
                  const StepState* state, GridBarrier* barrier) {
  using namespace step;
  WorkspaceScope scope(context);
  const auto kernel = network_step_kernel<Options>;
  const StepLayer& last = network.layers[network.count - 1];
  Arguments<Options> a{};
  a.step = network;
  a.schedule = Scheduler(network, device_info().multiprocessors).make();
  a.options = options;
  a.state = state;
  a.barrier = barrier;
  a.prepared = context.workspace->take<Prepared<Constants<Options>>>(1);
  a.loss = loss_arguments(network);
  a.loss.scale = &a.prepared->scale;
  a.loss.row_loss = context.workspace->take<float>(network.rows);
  a.is_mean = network.loss.reduction == Reduction::mean;
  a.weight_fits = (last.out + 1) * last.in <= kHeadFloats;
  const unsigned most = resident_blocks(kernel, kThreads, kSharedBytes);
  // Where not even one fits, a grid of one is what the launch refuses with a reason.
  const unsigned blocks =
      std::clamp(static_cast<unsigned>(a.schedule.most_items()), 1u, std::max(most, 1u));
  launch(kernel,
         {.grid = blocks, .block = kThreads, .dynamic_bytes = kSharedBytes, .cooperative = true},
         stream_of(context), a);
}

template void network_step(Context&, const NetworkStep&, const SgdOptions&, const StepState*,
                           GridBarrier*);
template void network_step(Context&, const NetworkStep&, const AdamOptions&, const StepState*,
                           GridBarrier*);

}  // namespace tilegrad::TILEGRAD_BACKEND
