// SPDX-License-Identifier: MIT
// The optimiser kernels that every ISA supplies, over one contiguous run. An element's result
// depends on its values alone, so callers may split a run anywhere; the sums have a fixed order for
// a given n.
#pragma once

#include <cstdint>

#include "../../context.hpp"
#include "../../optim_rules.hpp"

namespace tilegrad::cpu {

// The update of a run; `first` to `third` are OptimTensor's, null where a rule does not keep them.
template <class C, class T = typename C::Value>
using UpdateKernel = void (*)(T* w, const T* grad, T* first, T* second, T* third, int64_t n,
                              const C&);
// The same where w is the master of a bfloat16 parameter.
template <class C>
using MasterKernel = void (*)(float* w, bfloat16* parameter, const float* grad, float* first,
                              float* second, float* third, int64_t n, const C&);

template <class T>
struct OptimKernels {
  UpdateKernel<SgdConstants<T>> sgd;
  UpdateKernel<AdamConstants<T>> adam;
  UpdateKernel<RmspropConstants<T>> rmsprop;
  UpdateKernel<AdagradConstants<T>> adagrad;
  void (*scale)(T* x, int64_t n, T factor);
  // Over |x|, in double: NaN where an element is.
  double (*sum)(const T* x, int64_t n);
  double (*sum_squares)(const T* x, int64_t n);
  double (*maximum)(const T* x, int64_t n);
};

struct MasterKernels {
  MasterKernel<SgdConstants<float>> sgd;
  MasterKernel<AdamConstants<float>> adam;
  MasterKernel<RmspropConstants<float>> rmsprop;
  MasterKernel<AdagradConstants<float>> adagrad;
};

// The kernel of a table for the constants of a rule.
template <class Table, class T>
auto kernel_for(const Table& table, const SgdConstants<T>&) {
  return table.sgd;
}
template <class Table, class T>
auto kernel_for(const Table& table, const AdamConstants<T>&) {
  return table.adam;
}
template <class Table, class T>
auto kernel_for(const Table& table, const RmspropConstants<T>&) {
  return table.rmsprop;
}
template <class Table, class T>
auto kernel_for(const Table& table, const AdagradConstants<T>&) {
  return table.adagrad;
}

}  // namespace tilegrad::cpu
