// SPDX-License-Identifier: MIT
// The softmax kernels that every ISA supplies.
#pragma once

#include <cstdint>

namespace tilegrad::cpu {

// Rows of `classes` elements: element c of row r is p[r * row_stride + c * class_stride]. Either
// class_stride is 1 (rows follow each other), or row_stride is 1 (columns of a matrix). Columns may
// go on in the next matrix: with i = first + r, row r is column i % line of matrix i / line, and p
// points to the first matrix.
struct ClassRows {
  int64_t rows, classes, row_stride, class_stride;
  int64_t line = INT64_MAX;  // columns of a matrix; the matrices follow each other
  int64_t first = 0;
  bool stream = false;  // results leave the cache anyway: write past it
};

// Contiguous rows up to here are worked on side by side. It is a matter of classes alone: a row has
// the same bits whatever lies beside it, and the order of its sum differs.
constexpr int64_t kGroupedClasses = 128;

// Bytes of scratch memory that a kernel needs: a row, or up to two groups of rows side by side.
constexpr int64_t kLaneBytes = 5 * 64;  // of a class in a group, with room to step over
constexpr int64_t class_scratch_bytes(const ClassRows& shape) {
  if (shape.class_stride != 1 || shape.classes <= kGroupedClasses)
    return 2 * kLaneBytes * shape.classes;
  return (shape.classes + 32) * static_cast<int64_t>(sizeof(double));
}

template <class T>
struct SoftmaxKernels {
  // y = softmax(x), or its logarithm. y may be x.
  void (*forward)(T* y, const T* x, const ClassRows& shape, bool log, void* scratch);
  // From y, the forward's result. dx may be dy or y.
  void (*backward)(T* dx, const T* dy, const T* y, const ClassRows& shape, bool log);
};

}  // namespace tilegrad::cpu
