// SPDX-License-Identifier: MIT
// An optimiser's update with the constants of one step: what happens to a run of elements once
// their gradients are known, wherever these come from.
#pragma once

#include "../ops.hpp"
#include "isa.hpp"
#include "simd/optim.hpp"

namespace tilegrad::cpu {

template <class T>
struct UpdateRule {
  explicit UpdateRule(double nanoseconds) : nanoseconds(nanoseconds) {}

  double nanoseconds;  // estimated serial time of an element
  bool is_adam = false;
  SgdConstants<T> sgd = {};
  AdamConstants<T> adam = {};
  const OptimKernels<T>& kernel = kernels<OptimKernels<T>>();

  // Updates elements [begin, begin + n) of a tensor by the n gradients at `grad`.
  void operator()(const OptimTensor<T>& tensor, int64_t begin, int64_t n, const T* grad) const {
    const auto at = [begin](T* p) { return p == nullptr ? nullptr : p + begin; };
    if constexpr (sizeof(T) == sizeof(float)) {
      if (tensor.rounded != nullptr) {
        const auto& masters = kernels<MasterKernels>();
        if (is_adam) {
          return masters.adam(at(tensor.data), tensor.rounded + begin, grad, at(tensor.first),
                              at(tensor.second), at(tensor.third), n, adam);
        }
        return masters.sgd(at(tensor.data), tensor.rounded + begin, grad, at(tensor.first), n, sgd);
      }
    }
    if (is_adam) {
      kernel.adam(at(tensor.data), grad, at(tensor.first), at(tensor.second), at(tensor.third), n,
                  adam);
    } else {
      kernel.sgd(at(tensor.data), grad, at(tensor.first), n, sgd);
    }
  }
};

template <class T>
UpdateRule<T> update_rule(const SgdOptions& options, const StepState& state);
template <class T>
UpdateRule<T> update_rule(const AdamOptions& options, const StepState& state);

}  // namespace tilegrad::cpu
