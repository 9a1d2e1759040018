// SPDX-License-Identifier: MIT
// What every rung of the matmul ladder is given, and the table of rungs.
//
// A rung is a host function  bool matmul_<name>(Context&, const MatmulProblem<T>&)  in its own
// file. It does any shape with m, n >= 1 (k may be 0), any strides, any alignment, or it starts
// nothing and returns false: then its type, the device's compute capability or the layout is not
// served. Elements are finished by store_element or store_tile (epilogue.cuh).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "../numeric.cuh"
//
#include "../../ops.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

// Where c is the gradient of a layer's output y = f(z), its epilogue can make dL/dz of it.
template <class T>
struct LayerBelow {
  const T* saved = nullptr;      // (batch, m, n) contiguous: c is multiplied by f' from it, or null
  bool saved_is_output = false;  // y, else z
  Activation activation = {};    // f
  // Or null: a rung with tensor cores writes the sums over rows 16 r to 16 r + 15 of c, before they
  // are rounded, to row r of it. (batch, pieces_of_rows(m), n) contiguous.
  Accumulate<T>* sums = nullptr;
};
TILEGRAD_HOST_DEVICE inline int64_t pieces_of_rows(int64_t m) { return (m + 15) / 16; }

template <class T>
struct MatmulProblem {
  Matrix<T> c;
  Matrix<const T> a, b;
  MatmulSize size;
  Accumulate<T> alpha, beta;
  Epilogue<T> epilogue;
  // Where T has 16 bits and this is set, what would go to c goes here in float, and beta reads it:
  // sums that are added to further. c is left alone. col_stride is 1.
  Matrix<float> wide = {nullptr, 0, 1};
  LayerBelow<T> below = {};
};

// Runs a problem on the rung that the public matmul would take for c. Returns whether below.sums,
// if it was given, has been written: this depends on shape, T and device alone. In ../matmul.cu.
template <class T>
bool run_matmul(Context&, MatmulProblem<T>);

template <class T>
struct MatmulRung {
  std::string_view name;
  bool (*launch)(Context&, const MatmulProblem<T>&);
  // Which condition fails where it returns false (needs.hpp), of a device of that compute
  // capability; null: it does everything.
  std::string (*needs)(const MatmulProblem<T>&, int device) = nullptr;
};

// Each in <name>.cu, instantiated there for float, double, bfloat16 and float16.
template <class T>
bool matmul_naive(Context&, const MatmulProblem<T>&);
template <class T>
bool matmul_coalesced(Context&, const MatmulProblem<T>&);
template <class T>
bool matmul_shared(Context&, const MatmulProblem<T>&);
template <class T>
bool matmul_tile_1d(Context&, const MatmulProblem<T>&);
template <class T>
bool matmul_tile_2d(Context&, const MatmulProblem<T>&);
template <class T>
bool matmul_vectorized(Context&, const MatmulProblem<T>&);
template <class T>
bool matmul_double_buffered(Context&, const MatmulProblem<T>&);
template <class T>
bool matmul_warp_tile(Context&, const MatmulProblem<T>&);
template <class T>
bool matmul_tensor_core(Context&, const MatmulProblem<T>&);
template <class T>
bool matmul_hopper(Context&, const MatmulProblem<T>&);
template <class T>
bool matmul_tf32x3(Context&, const MatmulProblem<T>&);
template <class T>
bool matmul_hopper_tf32(Context&, const MatmulProblem<T>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
