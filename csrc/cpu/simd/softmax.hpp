// SPDX-License-Identifier: MIT
// The softmax kernels that every ISA supplies.
#pragma once

#include <cstdint>

namespace tilegrad::cpu {

// Rows of `classes` elements: element c of row r is p[r * row_stride + c * class_stride]. Either
// class_stride is 1 (rows follow each other), or row_stride is 1 (columns of a matrix).
struct ClassRows {
  int64_t rows, classes, row_stride, class_stride;
};

template <class T>
struct SoftmaxKernels {
  // y = softmax(x), or its logarithm. y may be x.
  void (*forward)(T* y, const T* x, ClassRows shape, bool log);
  // From y, the forward's result. dx may be dy or y.
  void (*backward)(T* dx, const T* dy, const T* y, ClassRows shape, bool log);
};

}  // namespace tilegrad::cpu
