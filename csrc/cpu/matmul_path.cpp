// SPDX-License-Identifier: MIT
#include "matmul_path.hpp"

#include <algorithm>
#include <limits>

#include "parallel.hpp"
#include "sizes.hpp"

namespace tilegrad::cpu {
namespace {

constexpr int64_t kPanelBytes = 2048;                // of a row of A: 14 of them in half of L1
constexpr int64_t kBlockBytes = int64_t{1} << 20;    // of packed B: half of L2
constexpr int64_t kStoreBytes = int64_t{1} << 22;    // of packed A that a thread keeps
constexpr int64_t kInPlaceBytes = int64_t{1} << 19;  // of B read in place
constexpr int64_t kCopyBytes = 24 * 1024;            // of B that stay in L1 without a copy
constexpr int kFewLines = 8;                         // that one set of L1 holds beside others
constexpr int64_t kFewRows = 128;                    // up to here tasks divide columns first
constexpr int64_t kFewPanels = 3;                    // up to here a copy of B does not pay
constexpr int64_t kManyPanels = 20;                  // beyond, a copy of B costs next to nothing
constexpr int64_t kTasksPerThread = 6;
constexpr double kPackTime = 20;  // of an element, in multiply-adds
constexpr double kLate = 0.06;    // of a block
constexpr int64_t kMostTurns = 4;
constexpr int64_t kDotBytes = 4096;   // of a row where lanes run along k: 10 of them in L1
constexpr int64_t kShortSum = 32;     // up to here writing C takes as long as computing it
constexpr int64_t kNarrow = 16;       // columns that C must have for lanes along them
constexpr int64_t kDotShare = 8;      // length of a sum from which on its tree is cheap, a row
constexpr int64_t kDotRows = 64;      // beyond, transposing B costs less than its unaligned reads;
constexpr int64_t kDotRowsAvx2 = 32;  // sooner where tiles along k are smaller

// Whole tiles, enough of them for every thread to get several tasks.
int64_t task_size(int64_t total, int64_t tile, int64_t wanted_tasks) {
  const int64_t tiles = ceil_div(total, tile);
  return ceil_div(tiles, std::clamp<int64_t>(wanted_tasks, 1, tiles)) * tile;
}

// Equal parts of k of at most `most`.
int64_t equal_blocks(int64_t k, int64_t most, int64_t multiple) {
  const int64_t blocks = std::max<int64_t>(1, ceil_div(k, most));
  return std::max<int64_t>(1, ceil_div(ceil_div(k, blocks), multiple) * multiple);
}

int64_t magnitude(int64_t stride) { return stride < 0 ? -stride : stride; }

// Whether k is the faster of an operand's two axes in memory.
bool lies_along_k(int64_t k_stride, int64_t other_stride, int64_t other_size) {
  return other_size <= 1 || magnitude(k_stride) == 1 ||
         magnitude(k_stride) < magnitude(other_stride);
}

// B is walked once, A for every few columns of it.
MatmulPath dots_path(MatmulSize size, MatrixStrides a, MatrixStrides b, const MatmulTiles& tiles,
                     int threads) {
  const auto [batch, m, n, k] = size;
  MatmulPath path = {};
  path.kind = MatmulPath::dots;
  path.rows = static_cast<int>(ceil_div(m, ceil_div(m, tiles.dot_rows)));
  path.pack_a = a.column != 1;
  path.pack_b = b.row != 1;
  path.task_rows = ceil_div(m, path.rows) * path.rows;
  const int64_t wanted = threads == 1 ? 1 : kTasksPerThread * threads;
  path.task_columns = task_size(n, tiles.dot_columns, ceil_div(wanted, batch));
  return path;
}

// Blocks of C that end soonest. Each packs its rows of A and its columns of B; threads take them in
// turns, and the last one to end is kLate of a block late.
void cut_blocks(MatmulPath& path, MatmulSize size, int64_t width, int64_t bytes, int threads) {
  const auto [batch, m, n, k] = size;
  const int64_t depth_bytes = k_block(k, bytes) * bytes;
  const int64_t most_panels = std::max<int64_t>(1, kStoreBytes / (depth_bytes * path.rows));
  const int64_t fewest_down = ceil_div(m, most_panels * path.rows);
  const bool alone =
      threads == 1 ||
      static_cast<double>(batch) * matmul_nanoseconds(m, n, k, bytes) < kSerialNanoseconds;
  const int64_t across_most = alone ? 1 : std::min<int64_t>(ceil_div(n, 2 * width), 2 * threads);
  double least = std::numeric_limits<double>::infinity();
  for (int64_t across = 1, last = 0; across <= across_most; ++across) {
    const int64_t columns = task_size(n, width, across);
    if (columns == last) continue;
    last = columns;
    const int64_t beside = batch * ceil_div(n, columns);
    for (int64_t turns = 1; turns <= (alone ? 1 : kMostTurns); ++turns) {
      const int64_t down = std::max(fewest_down, alone ? 1 : turns * threads / beside);
      const int64_t rows = task_size(m, path.rows, down);
      const int64_t blocks = beside * ceil_div(m, rows);
      const double block = static_cast<double>(rows * columns) +
                           kPackTime * static_cast<double>(path.pack_a * rows) +
                           kPackTime * static_cast<double>(path.pack_b * columns);
      const double time = block * (static_cast<double>(ceil_div(blocks, threads)) + kLate);
      if (time >= least) continue;
      least = time;
      path.task_rows = rows;
      path.task_columns = columns;
    }
  }
  const int64_t most = std::max<int64_t>(1, kBlockBytes / (depth_bytes * width)) * width;
  path.block_columns = task_size(path.task_columns, width, ceil_div(path.task_columns, most));
}

}  // namespace

bool lines_collide(MatrixStrides x, int64_t element_bytes) {
  return (x.row * element_bytes % 2048 == 0 && x.row != 0) ||
         (x.column * element_bytes % 2048 == 0 && x.column != 0);
}

int64_t k_block(int64_t k, int64_t element_bytes) {
  return equal_blocks(k, kPanelBytes / element_bytes, 8);
}

int64_t dot_block(int64_t k, int64_t element_bytes) {
  return equal_blocks(k, kDotBytes / element_bytes, 64 / element_bytes);
}

bool sums_along_k(MatmulSize size, MatrixStrides a, MatrixStrides b, const MatmulTiles& tiles) {
  const int64_t rows = std::min(size.m, size.n);
  const bool wide = tiles.lanes * tiles.element_bytes >= 64;
  if (rows > (wide ? kDotRows : kDotRowsAvx2) || kDotShare * rows > size.k) return false;
  return size.n >= size.m ? lies_along_k(b.row, b.column, size.n)
                          : size.n < kNarrow && lies_along_k(a.column, a.row, size.m);
}

double matmul_nanoseconds(int64_t m, int64_t n, int64_t k, int64_t element_bytes) {
  const double width = static_cast<double>(m) + static_cast<double>(n);
  const double sums = static_cast<double>(m) * static_cast<double>(n);
  return static_cast<double>(k * element_bytes) * std::max(sums / 300, width / 100);
}

MatmulPath choose_matmul_path(MatmulSize size, MatrixStrides a, MatrixStrides b,
                              const MatmulTiles& tiles, int threads) {
  const auto [batch, m, n, k] = size;
  MatmulPath path = {};
  const bool dots = sums_along_k(size, a, b, tiles);
  // A narrow C would leave lanes empty; its transpose has them along the rows of A.
  if (n < m && (dots || (n < kNarrow && a.row == 1))) {
    path.turn = true;
    return path;
  }
  if (dots) return dots_path(size, a, b, tiles, threads);
  // Few rows: wide tiles, which keep enough sums in flight. Short sums: row after row of C, and
  // wide tiles where they keep nearly as many sums, since they write longer pieces of rows.
  const bool few = m <= tiles.max_rows[4];
  const bool by_rows = m > 2 * tiles.max_rows[2] && n > 4 * tiles.lanes && k > 0 && k <= kShortSum;
  const bool wide =
      (few && n > 2 * tiles.lanes) || (by_rows && 8 * tiles.max_rows[4] > 3 * tiles.max_rows[2]);
  path.vectors = n <= tiles.lanes ? 1 : wide ? 4 : 2;
  const int64_t width = int64_t{path.vectors} * tiles.lanes;
  // Panels of equal height: 16 rows are 8 + 8, not 14 + 2.
  const int64_t panels = ceil_div(m, tiles.max_rows[path.vectors]);
  path.rows = static_cast<int>(ceil_div(m, panels));

  const int64_t wanted = threads == 1 ? 1 : kTasksPerThread * threads;
  const bool fits = panels <= kManyPanels && k * n * tiles.element_bytes <= kInPlaceBytes;
  if (!by_rows && (m <= kFewRows || n <= width || k == 0 || fits)) {
    path.kind = MatmulPath::columns;
    path.pack_b =
        b.column != 1 || (panels > kFewPanels && (!fits || lines_collide(b, tiles.element_bytes)));
    path.pack_a = path.rows > kFewLines && n > 4 * width && lines_collide(a, tiles.element_bytes);
    path.task_columns = task_size(n, width, ceil_div(wanted, batch));
    const int64_t tasks = batch * ceil_div(n, path.task_columns);
    // Where there are too few columns rows are divided as well; each task packs B again.
    path.task_rows = task_size(m, path.rows, std::min(ceil_div(wanted, tasks), ceil_div(m, 64)));
    return path;
  }
  path.kind = MatmulPath::blocks;
  const int64_t last_vectors = ceil_div(n % width, tiles.lanes);
  path.pack_a = !by_rows || (a.row == 1 && lines_collide(a, tiles.element_bytes));
  path.pack_b = !by_rows || b.column != 1 || n % tiles.lanes != 0 || last_vectors == 3 ||
                k * n * tiles.element_bytes > kCopyBytes;
  cut_blocks(path, size, width, tiles.element_bytes, threads);
  return path;
}

}  // namespace tilegrad::cpu
