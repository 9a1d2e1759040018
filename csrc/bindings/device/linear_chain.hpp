// SPDX-License-Identifier: MIT
// Chains of linear layers in a plan. The backward of the layer above is recorded first; when that
// of the layer below follows it and reads its dx, the one above is told to leave dz and db there.
#pragma once

#include <functional>
#include <memory>

#include "../../cuda/linear_chain.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

class LinearChain {
 public:
  template <class T, class G>
  using Below = std::function<BackwardBelow<T, G>()>;

  // The backward of one layer.
  template <class T, class G>
  class Layer {
   public:
    void backward(Context& context, T* dx, G* dweight, G* dbias, const T* dy, const T* x,
                  const T* weight, const T* saved, bool saved_is_output, LinearSize size,
                  Activation activation, bool accumulate) const {
      if (given_dz_) {  // and dbias
        dbias = nullptr, saved = nullptr, activation = {};
      }
      linear_backward_chain(context, dx, dweight, dbias, dy, x, weight, saved, saved_is_output,
                            size, activation, accumulate,
                            *below_ ? (*below_)() : BackwardBelow<T, G>{});
    }

   private:
    friend LinearChain;
    std::shared_ptr<Below<T, G>> below_ = std::make_shared<Below<T, G>>();  // set later, or not
    bool given_dz_ = false;
  };

  // Call number `call` of the plan writes dx and reads dy; saved() and dbias() are its operands
  // when it runs. The buffer of dx belongs to the two calls.
  template <class T, class G, class Saved, class Gradient>
  Layer<T, G> add(size_t call, const T* dx, const T* dy, LinearSize size, Saved saved,
                  bool saved_is_output, Activation activation, Gradient dbias) {
    Layer<T, G> layer;
    if (dy != nullptr && dy == dx_ && call == call_ + 1 && size.out_features == features_) {
      *std::static_pointer_cast<Below<T, G>>(below_) = [=] {
        return BackwardBelow<T, G>{saved(), saved_is_output, activation, dbias()};
      };
      layer.given_dz_ = true;
    }
    dx_ = dx, call_ = call, features_ = size.in_features, below_ = layer.below_;
    return layer;
  }

 private:
  // Of the layer that was recorded last.
  const void* dx_ = nullptr;
  size_t call_ = 0;
  int64_t features_ = 0;
  std::shared_ptr<void> below_;
};

}  // namespace tilegrad::TILEGRAD_BACKEND
