// SPDX-License-Identifier: MIT
#include "matmul_bfloat16_path.hpp"

#include <algorithm>

#include "sizes.hpp"

namespace tilegrad::cpu {
namespace {

constexpr int64_t kDepth = 512;                    // 14 rows of float32, 32 of bfloat16: in L1
constexpr int64_t kBlockBytes = int64_t{1} << 20;  // of packed B at one depth: half of L2
constexpr int64_t kSumBytes = int64_t{1} << 19;    // of a task's sums
constexpr int64_t kFewRows = 128;                  // of A: up to here they wait in L2
constexpr int64_t kTurned = 4;                     // columns a row from which on that pays
constexpr int64_t kTasksPerThread = 6;

// Whole tiles, about so many tasks of them.
int64_t task_size(int64_t total, int64_t tile, int64_t wanted) {
  const int64_t tiles = ceil_div(total, tile);
  return ceil_div(tiles, std::clamp<int64_t>(wanted, 1, tiles)) * tile;
}

}  // namespace

Bfloat16Path choose_bfloat16_path(MatmulSize size, MatrixStrides b,
                                  const MatmulBfloat16Kernels& kernel, int threads) {
  const auto [batch, m, n, k] = size;
  Bfloat16Path path = {};
  if (kernel.reads_a && b.row == 1 && m <= kernel.row_multiple && n > kTurned * m) {
    path.turn = true;
    return path;
  }
  path.read_b = (b.row == 1 || b.column == 1) && m <= kernel.few_rows;
  const bool wide = path.read_b || (m <= kernel.max_rows[4] && n > 2 * kernel.lanes);
  path.vectors = n <= kernel.lanes ? 1 : wide ? 4 : 2;
  const int64_t width = int64_t{path.vectors} * kernel.lanes;
  // Panels of equal height: 16 rows are 8 + 8, not 14 + 2.
  const int64_t panels = path.read_b ? 1 : ceil_div(m, kernel.max_rows[path.vectors]);
  path.rows = static_cast<int>(round_up(ceil_div(m, panels), kernel.row_multiple));
  const int64_t blocks = std::max<int64_t>(1, ceil_div(k, kDepth));
  path.depth = std::max(kPackedSteps, round_up(ceil_div(k, blocks), kPackedSteps));

  const int64_t wanted = threads == 1 ? 1 : kTasksPerThread * threads;
  path.share_b = m > kFewRows || panels > kMostOwnPanels;
  if (!path.share_b) {
    path.task_rows = round_up(m, path.rows);
    path.task_columns = task_size(n, width, ceil_div(wanted, batch));
    return path;
  }
  const int64_t panel_bytes = path.depth * width * kernel.element_bytes;
  path.block_columns = std::max<int64_t>(1, kBlockBytes / panel_bytes) * width;
  const int64_t block = std::min(path.block_columns, round_up(n, width));
  const int64_t most_rows = kSumBytes / (block * static_cast<int64_t>(sizeof(float)));
  const int64_t least_tasks = ceil_div(m, std::max<int64_t>(most_rows, path.rows));
  path.task_rows = task_size(m, path.rows, std::max(wanted, least_tasks));
  path.task_columns = task_size(block, width, ceil_div(wanted, ceil_div(m, path.task_rows)));
  return path;
}

}  // namespace tilegrad::cpu
