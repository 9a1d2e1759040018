// SPDX-License-Identifier: MIT
// A matrix product on its way through the paths of matmul, and what they share.
#pragma once

#include <algorithm>

#include "matmul_path.hpp"
#include "simd/activation.hpp"
#include "simd/matmul.hpp"
#include "simd/matmul_dot.hpp"
#include "sizes.hpp"

namespace tilegrad::cpu {

template <class T>
struct Product {
  const MatmulKernels<T>& kernel;
  const MatmulDotKernels<T>& dot;
  const ActivationKernels<T>& activation;
  Matrix<T> c;
  Matrix<const T> a, b;
  MatmulSize size;
  T alpha, beta;
  Epilogue<T> epilogue;
  MatmulPath path;

  int64_t depth() const { return k_block(size.k, sizeof(T)); }
  int64_t k_blocks() const { return std::max<int64_t>(1, ceil_div(size.k, depth())); }
  int64_t width() const { return int64_t{path.vectors} * kernel.lanes; }
};

template <class T>
void run_epilogue(const Product<T>& x, int64_t batch, int64_t i, int64_t rows, int64_t j,
                  int64_t columns) {
  const Epilogue<T>& e = x.epilogue;
  if (e.bias == nullptr && e.preactivation == nullptr &&
      e.activation.kind == ActivationKind::identity) {
    return;
  }
  for (int64_t r = i; r < i + rows; ++r) {
    T* before = e.preactivation == nullptr
                    ? nullptr
                    : e.preactivation + (batch * x.size.m + r) * x.size.n + j;
    x.activation.bias_forward(x.c.data + batch * x.c.batch_stride + r * x.c.row_stride + j, before,
                              e.bias == nullptr ? nullptr : e.bias + j, columns, e.activation);
  }
}

// The path of large products.
template <class T>
void run_blocks(Context& context, const Product<T>& x);

// The path of operands that lie along k.
template <class T>
void run_dots(Context& context, const Product<T>& x);

}  // namespace tilegrad::cpu
