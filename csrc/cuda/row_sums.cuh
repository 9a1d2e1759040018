// SPDX-License-Identifier: MIT
// The sum of a term over all rows, where a loss has one value a row.
//
// Parallelism: a sum is that of a fixed number of threads, which depends on the number of rows
//              only: one block, or for many rows up to 1024 blocks and then one over their sums.
// Memory:      what a term reads, once.
#pragma once

#include <algorithm>
#include <cstdint>

#include "reduce.cuh"
#include "vector_io.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

inline constexpr int kSumThreads = 512;

template <class V>
struct Element {
  const V* values;

  __device__ double operator()(int64_t i) const { return static_cast<double>(values[i]); }
};

// The sum over *denominator where that is given, else over `divisor`.
template <class T>
struct StoreLoss {
  T* loss;
  const double* denominator;
  double divisor = 1;

  __device__ void operator()(double sum) const {
    sum /= denominator == nullptr ? divisor : *denominator;
    *loss = narrow<T>(static_cast<Accumulate<T>>(sum));
  }
};

struct StoreSum {
  double* sum;

  __device__ void operator()(double value) const { *sum = value; }
};

// store(sum of term(i)) where there is one block, else that of the block in partial[block].
template <class Term, class Store>
__global__ void __launch_bounds__(kSumThreads, 1)
    row_sum_kernel(Term term, Store store, double* partial, int64_t n) {
  grid_dependency_wait();
  double sum = 0;
  for (int64_t i = grid_thread(); i < n; i += grid_threads()) sum += term(i);
  sum = block_sum<kSumThreads>(sum);
  if (threadIdx.x != 0) return;
  if (gridDim.x == 1) {
    store(sum);
  } else {
    partial[blockIdx.x] = sum;
  }
}

template <class Term, class Store>
void sum_rows(Context& context, const Term& term, const Store& store, int64_t n) {
  constexpr int64_t kRowsPerBlock = 16 * kSumThreads;
  constexpr int64_t kMostBlocks = 1024;
  const int64_t blocks =
      std::clamp<int64_t>((n + kRowsPerBlock - 1) / kRowsPerBlock, 1, kMostBlocks);
  WorkspaceScope scope(context);
  double* partial = blocks == 1 ? nullptr : context.workspace->take<double>(blocks);
  launch_next(row_sum_kernel<Term, Store>, static_cast<unsigned>(blocks), kSumThreads, 0, context,
              term, store, partial, n);
  if (blocks == 1) return;
  launch_next(row_sum_kernel<Element<double>, Store>, 1, kSumThreads, 0, context,
              Element<double>{partial}, store, nullptr, blocks);
}

}  // namespace tilegrad::TILEGRAD_BACKEND
