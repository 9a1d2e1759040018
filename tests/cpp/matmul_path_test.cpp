// SPDX-License-Identifier: MIT
// choose_matmul_path at and beside every border: what it returns is legal, and what shows in the
// bits of a result does not depend on threads, batch or gaps.
#include "../../csrc/cpu/matmul_path.hpp"

#include <algorithm>
#include <cstdio>
#include <set>
#include <vector>

using namespace tilegrad::cpu;

namespace {

struct Isa {
  const char* name;
  int vector_bytes;
  int max_rows[5];
  int dot_rows, dot_columns;
};
// As in simd/tile_rows.hpp and simd/matmul_dot.cpp.
constexpr Isa kIsas[] = {
    {"avx512", 64, {0, 14, 14, 0, 6}, 4, 6},
    {"avx2", 32, {0, 6, 6, 0, 2}, 4, 3},
    {"generic", 16, {0, 4, 4, 0, 2}, 4, 2},
};

struct Layout {
  const char* name;
  MatrixStrides (*a)(MatmulSize);
  MatrixStrides (*b)(MatmulSize);
  bool a_along_k, b_along_k;  // the order of axes, where both axes are longer than one
};
constexpr Layout kLayouts[] = {
    {"NN", [](MatmulSize s) { return MatrixStrides{s.k, 1}; },
     [](MatmulSize s) { return MatrixStrides{s.n, 1}; }, true, false},
    {"NT", [](MatmulSize s) { return MatrixStrides{s.k, 1}; },
     [](MatmulSize s) { return MatrixStrides{1, s.k}; }, true, true},
    {"TN", [](MatmulSize s) { return MatrixStrides{1, s.m}; },
     [](MatmulSize s) { return MatrixStrides{s.n, 1}; }, false, false},
    {"TT", [](MatmulSize s) { return MatrixStrides{1, s.m}; },
     [](MatmulSize s) { return MatrixStrides{1, s.k}; }, false, true},
    {"NT with gaps", [](MatmulSize s) { return MatrixStrides{4 * s.k + 9, 2}; },
     [](MatmulSize s) { return MatrixStrides{2, 4 * s.k + 9}; }, true, true},
    {"TN backwards", [](MatmulSize s) { return MatrixStrides{-1, -s.m - 1}; },
     [](MatmulSize s) { return MatrixStrides{-s.n - 1, -1}; }, false, false},
};

int failures = 0;
MatmulSize size;
const char *isa_name, *layout_name;
int64_t bytes;

void expect(bool ok, const char* what) {
  if (ok) return;
  if (++failures <= 20) {
    std::printf("%s, %s, %d bytes, batch %d, %d x %d x %d: %s\n", isa_name, layout_name,
                static_cast<int>(bytes), static_cast<int>(size.batch), static_cast<int>(size.m),
                static_cast<int>(size.n), static_cast<int>(size.k), what);
  }
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

void check_path(const Isa& isa, const Layout& layout, int threads) {
  const MatmulTiles tiles = {static_cast<int>(isa.vector_bytes / bytes), isa.max_rows, isa.dot_rows,
                             isa.dot_columns, bytes};
  const MatrixStrides a = layout.a(size), b = layout.b(size);
  const auto [batch, m, n, k] = size;
  const MatmulPath path = choose_matmul_path(size, a, b, tiles, threads);
  const bool dots = sums_along_k(size, a, b, tiles);
  const bool few = std::min(m, n) <= (isa.vector_bytes == 64 ? 64 : 32) && 8 * std::min(m, n) <= k;
  if (m > 1 && n > 1 && k > 1) {
    const bool wanted = n >= m ? layout.b_along_k && few : layout.a_along_k && few && n < 16;
    expect(dots == wanted, "sums_along_k is not what the order of axes says");
  }
  if (path.turn) {
    expect(n < m, "turned, but not narrow");
    const MatmulSize turned = {batch, n, m, k};
    const MatrixStrides left = {b.column, b.row}, right = {a.column, a.row};
    expect(!choose_matmul_path(turned, left, right, tiles, threads).turn, "turned for ever");
    expect(!dots || sums_along_k(turned, left, right, tiles),
           "turned into another order of the sum");
    return;
  }
  expect(dots == (path.kind == MatmulPath::dots), "another order of the sum than sums_along_k");
  expect(path.task_rows > 0 && path.task_rows % path.rows == 0, "a task cuts a tile of rows");
  expect(path.task_columns > 0, "a task without columns");
  if (dots) {
    expect(path.rows >= 1 && path.rows <= isa.dot_rows, "no such dot tile");
    expect(path.task_columns % isa.dot_columns == 0, "a task cuts a dot tile");
    expect(path.pack_a || a.column == 1, "A read in place with gaps along k");
    expect(path.pack_b || b.row == 1, "B read in place with gaps along k");
    return;
  }
  const int64_t width = int64_t{path.vectors} * tiles.lanes;
  expect(path.vectors == 1 || path.vectors == 2 || path.vectors == 4, "no tile of that width");
  expect(path.rows >= 1 && path.rows <= isa.max_rows[path.vectors], "no tile of that height");
  expect(ceil_div(m, path.rows) == ceil_div(m, isa.max_rows[path.vectors]), "more panels than due");
  expect(path.task_columns % width == 0, "a task cuts a tile of columns");
  expect(path.pack_b || b.column == 1, "B read in place with gaps");
  if (path.kind == MatmulPath::columns) return;
  const int64_t deep = k_block(k, bytes) * bytes;
  expect(path.block_columns > 0 && path.block_columns % width == 0, "a block cuts a tile");
  expect(path.block_columns <= path.task_columns, "a block wider than its task");
  expect(path.block_columns == width || path.block_columns * deep <= 1 << 20,
         "packed B does not fit half of L2");
  expect(path.task_rows * deep <= 1 << 22, "packed A is too much for every thread to keep");
  const int64_t blocks = batch * ceil_div(m, path.task_rows) * ceil_div(n, path.task_columns);
  const int64_t pairs = batch * ceil_div(m, path.rows) * ceil_div(n, 2 * width);
  const double nanoseconds = static_cast<double>(batch) * matmul_nanoseconds(m, n, k, bytes);
  expect(nanoseconds < 5000 || 4 * blocks >= std::min<int64_t>(threads, pairs),
         "threads without a block");
  if (!path.pack_b) {
    expect(n % tiles.lanes == 0 && ceil_div(n % width, tiles.lanes) != 3,
           "a tile would load beyond the last row of B");
  }
}

void check_blocks_of_k() {
  for (int64_t k = 1; k < 5000; ++k) {
    size = {1, 0, 0, k};
    const int64_t block = k_block(k, bytes), dot = dot_block(k, bytes);
    expect(block > 0 && block % 8 == 0 && block * bytes <= 2048, "k_block");
    expect(dot > 0 && dot * bytes % 64 == 0 && dot * bytes <= 4096, "dot_block");
    expect(ceil_div(k, dot) == ceil_div(k, 4096 / bytes), "more dot blocks than due");
  }
}

std::vector<int64_t> around(std::initializer_list<int64_t> edges) {
  std::set<int64_t> sizes;
  for (int64_t edge : edges) {
    for (int64_t near = edge - 1; near <= edge + 1; ++near) {
      if (near > 0) sizes.insert(near);
    }
  }
  return {sizes.begin(), sizes.end()};
}

}  // namespace

int main() {
  isa_name = layout_name = "";
  for (int64_t item : {4, 8}) {
    bytes = item;
    check_blocks_of_k();
    for (const Isa& isa : kIsas) {
      isa_name = isa.name;
      const int lanes = static_cast<int>(isa.vector_bytes / bytes);
      const int64_t rows = isa.max_rows[2];
      const auto ms = around({1, 4, 16, 32, 64, 128, 1000, isa.max_rows[4], rows, 2 * rows,
                              3 * rows, 20 * rows, isa.dot_rows});
      const auto ns = around({1, 16, 512, 5000, lanes, 2 * lanes, 3 * lanes, 4 * lanes, 8 * lanes,
                              isa.dot_columns, 2 * isa.dot_columns, 24 * lanes});
      auto ks = around({1, 8, 24, 32, 96, 128, 512, 1024, 8 * 15, 8 * 32, 8 * 64});
      ks.push_back(0);
      for (const Layout& layout : kLayouts) {
        layout_name = layout.name;
        for (int64_t m : ms) {
          for (int64_t n : ns) {
            for (int64_t k : ks) {
              for (int threads : {1, 2, 3, 64}) {
                for (int64_t batch : {1, 7}) {
                  size = {batch, m, n, k};
                  check_path(isa, layout, threads);
                }
              }
            }
          }
        }
      }
    }
  }
  if (failures > 0) std::printf("%d failures\n", failures);
  return failures > 0;
}
