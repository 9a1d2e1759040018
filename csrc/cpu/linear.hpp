// SPDX-License-Identifier: MIT
// What the two ways through a layer's backward pass begin with: linear.cpp, linear_update.cpp.
#pragma once

#include "../ops.hpp"

namespace tilegrad::cpu {

// dz = dy f'(z), rows `stride` apart.
template <class T>
struct LayerGradient {
  const T* dz;
  int64_t stride;
};

// dz, in workspace unless it is dy, and db where dbias is not null.
template <class T>
LayerGradient<T> layer_gradient(Context&, T* dbias, const T* dy, const T* saved,
                                bool saved_is_output, LinearSize size, Activation activation,
                                bool accumulate);

}  // namespace tilegrad::cpu
