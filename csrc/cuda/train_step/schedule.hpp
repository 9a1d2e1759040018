// SPDX-License-Identifier: MIT
// Who does what when in a step by one kernel: phases that a barrier of the whole grid separates,
// and in each the runs of items that its blocks share. A pure function of the sizes and of how many
// blocks there are, apart from the arithmetic.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../train_step.hpp"

namespace tilegrad::TILEGRAD_BACKEND::step {

enum class Work : int8_t {
  prepare,         // divisor of the mean, constants of the optimiser
  forward,         // a tile of a layer's output
  head,            // a row: last layer, loss, its gradient, the gradient of the last layer's input
  loss,            // the sum of the rows' losses
  input_gradient,  // a tile of dz of the layer below
  weight_update,   // a tile of W
  bias_update,     // kBiasColumns elements of b
};

// Tiles of a product: rows, columns, and about how many cycles an H200's multiprocessor takes for
// one step along k, by its shared memory or by its share of the L2's bandwidth.
enum class Tile : int8_t { small, medium, large };
struct TileSize {
  int64_t m, n, cycles;
};
inline constexpr TileSize kTiles[] = {{16, 32, 8}, {32, 32, 12}, {64, 64, 48}};
inline constexpr int64_t kTileCycles = 1500;  // beside its steps: filling the ring, the epilogue
inline constexpr int64_t kBiasColumns = 32;

struct Run {
  Work work;
  Tile tile;
  int8_t layer;
  int items;
};

inline constexpr int kMostPhases = 2 * kMostStepLayers;
inline constexpr int kMostRuns = 4 * kMostStepLayers + 2;
struct Schedule {
  int phases = 0;
  int first[kMostPhases + 1] = {};  // the runs of a phase: first[p] .. first[p + 1]
  Run runs[kMostRuns] = {};

  // Of a phase: more blocks would have nothing to do.
  int64_t most_items() const {
    int64_t most = 0;
    for (int p = 0; p < phases; ++p) {
      int64_t items = 0;
      for (int r = first[p]; r < first[p + 1]; ++r) items += runs[r].items;
      most = std::max(most, items);
    }
    return most;
  }
};

constexpr int64_t tiles_of(TileSize tile, int64_t m, int64_t n) {
  return (m + tile.m - 1) / tile.m * ((n + tile.n - 1) / tile.n);
}

constexpr Tile choose_tile(int64_t m, int64_t n, int64_t k, int64_t multiprocessors) {
  Tile best = Tile::large;
  int64_t least = INT64_MAX;
  for (const Tile tile : {Tile::large, Tile::medium, Tile::small}) {
    const TileSize size = kTiles[static_cast<int>(tile)];
    const int64_t turns = (tiles_of(size, m, n) + multiprocessors - 1) / multiprocessors;
    const int64_t cycles = turns * (k * size.cycles + kTileCycles);
    if (cycles < least) {
      least = cycles;
      best = tile;
    }
  }
  return best;
}

class Scheduler {
 public:
  Scheduler(const NetworkStep& step, int64_t multiprocessors)
      : step_(step), multiprocessors_(multiprocessors) {}

  Schedule make() {
    const int last = step_.count - 1;
    for (int l = 0; l < last; ++l) {
      add_product(Work::forward, l, step_.rows, step_.layers[l].out, step_.layers[l].in);
      if (l == 0) add(Work::prepare, Tile::small, 0, 1);
      end_phase();
    }
    if (last == 0) {
      add(Work::prepare, Tile::small, 0, 1);
      end_phase();
    }
    add(Work::head, Tile::small, last, step_.rows);
    end_phase();
    // W_l changes in the phase after the one that made dz_{l-1} from it.
    for (int l = last - 1; l >= 1; --l) {
      add_product(Work::input_gradient, l, step_.rows, step_.layers[l].in, step_.layers[l].out);
      add_update(l + 1);
      if (l == last - 1) add(Work::loss, Tile::small, 0, 1);
      end_phase();
    }
    if (last >= 1) add_update(1);
    add_update(0);
    if (last <= 1) add(Work::loss, Tile::small, 0, 1);
    end_phase();
    return schedule_;
  }

 private:
  void add(Work work, Tile tile, int layer, int64_t items) {
    schedule_.runs[count_++] = {work, tile, static_cast<int8_t>(layer), static_cast<int>(items)};
  }
  void add_product(Work work, int layer, int64_t m, int64_t n, int64_t k) {
    const Tile tile = choose_tile(m, n, k, multiprocessors_);
    add(work, tile, layer, tiles_of(kTiles[static_cast<int>(tile)], m, n));
  }
  void add_update(int layer) {
    const StepLayer& l = step_.layers[layer];
    add_product(Work::weight_update, layer, l.out, l.in, step_.rows);
    if (l.bias.data != nullptr) {
      add(Work::bias_update, Tile::small, layer, (l.out + kBiasColumns - 1) / kBiasColumns);
    }
  }
  void end_phase() { schedule_.first[++schedule_.phases] = count_; }

  const NetworkStep& step_;
  int64_t multiprocessors_;
  Schedule schedule_;
  int count_ = 0;
};

}  // namespace tilegrad::TILEGRAD_BACKEND::step
