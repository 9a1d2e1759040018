// SPDX-License-Identifier: MIT
// An optimiser's update with the constants of one step: what happens to a run of elements once
// their gradients are known, wherever these come from.
#pragma once

#include <variant>

#include "../ops.hpp"
#include "isa.hpp"
#include "simd/optim.hpp"

namespace tilegrad::cpu {

template <class T>
using StepConstants =
    std::variant<SgdConstants<T>, AdamConstants<T>, RmspropConstants<T>, AdagradConstants<T>>;

template <class T>
struct UpdateRule {
  double nanoseconds;  // estimated serial time of an element
  StepConstants<T> constants;

  // Updates elements [begin, begin + n) of a tensor by the n gradients at `grad`.
  void operator()(const OptimTensor<T>& tensor, int64_t begin, int64_t n, const T* grad) const {
    const auto at = [begin](T* p) { return p == nullptr ? nullptr : p + begin; };
    T* const w = at(tensor.data);
    T *const first = at(tensor.first), *const second = at(tensor.second);
    T* const third = at(tensor.third);
    std::visit(
        [&](const auto& c) {
          if constexpr (sizeof(T) == sizeof(float)) {
            if (tensor.rounded != nullptr) {
              const auto step = kernel_for(kernels<MasterKernels>(), c);
              return step(w, tensor.rounded + begin, grad, first, second, third, n, c);
            }
          }
          kernel_for(kernels<OptimKernels<T>>(), c)(w, grad, first, second, third, n, c);
        },
        constants);
  }
};

template <class T, class Options>
UpdateRule<T> update_rule(const Options& options, const StepState& state);

}  // namespace tilegrad::cpu
