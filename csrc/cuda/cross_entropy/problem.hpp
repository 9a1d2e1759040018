// SPDX-License-Identifier: MIT
// What every rung of the cross-entropy ladder is given, and the list of rungs.
//
// A rung is a host function  bool cross_entropy_<name>(Context&, const CrossEntropyArguments<T>&)
// in its own file. It walks contiguous rows (inner = 1) of any number of classes, or it starts
// nothing and returns false. Losses leave it row by row; sums are made elsewhere.
#pragma once

#include <cstdint>

#include "../numeric.cuh"
//
#include "../../ops.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

template <class T>
struct CrossEntropyArguments {
  T* loss;                  // a row's loss goes here,
  Accumulate<T>* row_loss;  // or here, or nowhere: both null
  T* dlogits;               // null, or like logits; may be logits
  const T* logits;
  const T* probabilities;  // like logits, or null
  const T* weight;         // (classes) or null
  IndexView indices;       // (rows)
  ClassShape shape;
  int64_t rows;
  int64_t ignore_index;
  const T* grad_output;        // null for one; that of row r is grad_output[r * grad_step],
  int64_t grad_step;           // unless
  const Accumulate<T>* scale;  // is given: one factor of all gradients
  Accumulate<T> keep, floor;   // 1 - smoothing, smoothing / classes
  bool soft;                   // classes beside the target's have a share
  bool aligned;                // every pointer to logits, dlogits, probabilities, weight
};

template <class T>
bool cross_entropy_three_pass(Context&, const CrossEntropyArguments<T>&);
template <class T>
bool cross_entropy_online_warp(Context&, const CrossEntropyArguments<T>&);
template <class T>
bool cross_entropy_block_row(Context&, const CrossEntropyArguments<T>&);
template <class T>
bool cross_entropy_one_pass(Context&, const CrossEntropyArguments<T>&);
template <class T>
bool cross_entropy_cluster(Context&, const CrossEntropyArguments<T>&);
// Any inner, and the choice where it is not 1.
template <class T>
bool cross_entropy_columns(Context&, const CrossEntropyArguments<T>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
