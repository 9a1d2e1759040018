// SPDX-License-Identifier: MIT
// On the CPU every layer's backward is a call of its own, with the bits of the long form.
#pragma once

#include "../../ops.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

class LinearChain {
 public:
  template <class T, class G>
  struct Layer {
    void backward(Context& context, T* dx, G* dweight, G* dbias, const T* dy, const T* x,
                  const T* weight, const T* saved, bool saved_is_output, LinearSize size,
                  Activation activation, bool accumulate) const {
      linear_backward(context, dx, dweight, dbias, dy, x, weight, saved, saved_is_output, size,
                      activation, accumulate);
    }
  };

  template <class T, class G, class... Operands>
  Layer<T, G> add(size_t /*call*/, const T* /*dx*/, const T* /*dy*/, LinearSize,
                  const Operands&...) {
    return {};
  }
};

}  // namespace tilegrad::TILEGRAD_BACKEND
