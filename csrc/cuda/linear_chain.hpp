// SPDX-License-Identifier: MIT
// linear_backward in a chain of layers, for plans: what a layer would pass down as dL/dy leaves its
// product as dL/dz of the layer below, whose pass over it falls away.
#pragma once

#include "../ops.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

// The layer below: y = f(z) is the input of the layer above.
template <class T, class G>
struct BackwardBelow {
  const T* saved = nullptr;      // (rows, in_features): y or z; null for the identity
  bool saved_is_output = false;  // y
  Activation activation = {};    // f
  G* dbias = nullptr;            // (in_features) or null
};

// linear_backward (ops.hpp), but dx is multiplied by f'(below.saved) before it is rounded, and
// below.dbias gets the sums of its columns, added to where accumulate. Of float and double all bits
// but dbias's are those of linear_backward twice. T and G as there.
template <class T, class G>
void linear_backward_chain(Context&, T* dx, G* dweight, G* dbias, const T* dy, const T* x,
                           const T* weight, const T* saved, bool saved_is_output, LinearSize size,
                           Activation activation, bool accumulate,
                           const BackwardBelow<T, G>& below);

}  // namespace tilegrad::TILEGRAD_BACKEND
