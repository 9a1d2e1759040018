// SPDX-License-Identifier: MIT
// On the CPU a weight is updated by the call that makes its gradient, where nothing else in the
// plan reads that gradient.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "../../cpu/linear_update.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

class FusedUpdates {
 public:
  // What a call holds that makes a gradient: the update to do at once, if there is one.
  template <class T>
  class Update {
   public:
    bool is_set() const { return *rule_ != nullptr; }
    void linear_backward(Context& context, T* dx, T* dweight, T* dbias, const T* dy, const T* x,
                         const T* saved, bool saved_is_output, LinearSize size,
                         Activation activation) const {
      const auto [weight, rule] = (*rule_)();
      linear_backward_update<T>(context, dx, dweight, dbias, weight, dy, x, saved, saved_is_output,
                                size, activation, rule);
    }

   private:
    friend class FusedUpdates;
    using Rule = std::function<std::pair<OptimTensor<T>, UpdateRule<T>>()>;
    std::shared_ptr<Rule> rule_ = std::make_shared<Rule>();
  };

  // For a call that makes the gradient of a weight of so many elements.
  template <class T>
  Update<T> offer(const void* gradient, int64_t size) {
    Update<T> update;
    if (gradient != nullptr && worth_fusing(size)) offers_.push_back({gradient, update.rule_});
    return update;
  }

  // Another call reads the gradients: all must be stored.
  void withdraw() { offers_.clear(); }

  // Takes the weights whose gradients are on offer out of the list: their calls update them.
  template <class T, class Options>
  void claim(std::vector<OptimTensor<T>>& tensors, const Options& options, const StepState* state) {
    std::erase_if(tensors, [&](const OptimTensor<T>& tensor) {
      for (const Offer& offer : offers_) {
        if (offer.gradient != tensor.grad) continue;
        auto& rule = *static_cast<typename Update<T>::Rule*>(offer.rule.get());
        rule = [=] { return std::pair(tensor, update_rule<T>(options, *state)); };
        empty_ = false;
        return true;
      }
      return false;
    });
  }

  bool empty() const { return empty_; }

 private:
  struct Offer {
    const void* gradient;
    std::shared_ptr<void> rule;
  };
  std::vector<Offer> offers_;
  bool empty_ = true;
};

}  // namespace tilegrad::TILEGRAD_BACKEND
