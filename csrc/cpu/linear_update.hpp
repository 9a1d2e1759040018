// SPDX-License-Identifier: MIT
// The backward pass of a linear layer whose weight is updated at once, without its gradient in
// memory between the two.
#pragma once

#include "optim.hpp"

namespace tilegrad::cpu {

// Whether this pays for a weight: a small one is better updated together with the others.
bool worth_fusing(int64_t weight_elements);

// linear_backward and rule(weight, dweight): the same bits, but what `dweight`, memory for the
// gradient, holds afterwards is unspecified. dx is that of the weight before the update.
template <class T>
void linear_backward_update(Context&, T* dx, T* dweight, T* dbias, const OptimTensor<T>& weight,
                            const T* dy, const T* x, const T* saved, bool saved_is_output,
                            LinearSize size, Activation activation, const UpdateRule<T>& rule);

}  // namespace tilegrad::cpu
