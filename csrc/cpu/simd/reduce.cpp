// SPDX-License-Identifier: MIT
// Math: totals[r] = sum_j x[r,j], or totals[j] = sum_r x[r,j].
// Shapes: x (rows, n), rows row_stride apart.
// Parallelism: along a row kAccumulators vectors add every fourth vector each; down a column every
//   lane is a sum of its own, four vectors of columns at a time.
// Memory: every element is read once, 4 or 8 bytes.
// Source: blocked summation, N. Higham, Accuracy and Stability of Numerical Algorithms, 4.2.
#include "reduce.hpp"

#include "../isa.hpp"
#include "vectors.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

template <class T>
[[gnu::flatten]] void sum_rows(double* totals, const T* x, int64_t rows, int64_t n,
                               int64_t row_stride) {
  for (int64_t row = 0; row < rows; ++row, x += row_stride) {
    totals[row] =
        blocked_sum<Vec<T>>(n, [&](int64_t i, auto access) { return access.load(x + i); });
  }
}

template <class T>
[[gnu::flatten]] void sum_columns(double* totals, const T* x, int64_t rows, int64_t n,
                                  int64_t row_stride) {
  using V = Vec<T>;
  for_columns<V>(n, [&](int64_t i, auto columns, auto access) {
    constexpr int kVectors = columns.count;
    double sums[1][kVectors * V::kSize];
    blocked_column_sums<V, 1, kVectors>(sums, rows, [&](int64_t row, int u, V(&terms)[1]) {
      terms[0] = access.load(x + row * row_stride + i + u * V::kSize);
    });
    const int lanes = (kVectors - 1) * V::kSize + access.n;
    for (int lane = 0; lane < lanes; ++lane) totals[i + lane] = sums[0][lane];
  });
}

template <class T>
constexpr SumKernels<T> kTable = {sum_rows<T>, sum_columns<T>};

}  // namespace

template <>
const SumKernels<float>& table() {
  return kTable<float>;
}
template <>
const SumKernels<double>& table() {
  return kTable<double>;
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
