// SPDX-License-Identifier: MIT
// The optimiser kernels that every ISA supplies, over one contiguous run. An element's result
// depends on its values alone, so callers may split a run anywhere; the sums have a fixed order for
// a given n.
#pragma once

#include <cstdint>

#include "../../context.hpp"

namespace tilegrad::cpu {

// Scalars are computed in double and rounded to T once, as torch does.
template <class T>
struct SgdConstants {
  T gradient_factor;  // the clipping coefficient, negative to maximise
  T weight_decay, momentum, one_minus_dampening, minus_learning_rate;
  bool has_weight_decay, has_momentum, first_step, nesterov;
};

template <class T>
struct AdamConstants {
  T gradient_factor;
  T data_factor;   // decoupled decay: 1 - lr weight_decay, else 1
  T weight_decay;  // added to the gradient where has_weight_decay
  T one_minus_beta1, beta2, one_minus_beta2;
  T sqrt_correction2, eps, minus_step_size;
  bool has_weight_decay, amsgrad;
};

template <class T>
struct OptimKernels {
  void (*sgd)(T* w, const T* grad, T* momentum, int64_t n, const SgdConstants<T>&);
  void (*adam)(T* w, const T* grad, T* m, T* v, T* v_max, int64_t n, const AdamConstants<T>&);
  void (*scale)(T* x, int64_t n, T factor);
  // Over |x|, in double: NaN where an element is.
  double (*sum)(const T* x, int64_t n);
  double (*sum_squares)(const T* x, int64_t n);
  double (*maximum)(const T* x, int64_t n);
};

// The same steps where w is the master of a bfloat16 parameter.
struct MasterKernels {
  void (*sgd)(float* w, bfloat16* parameter, const float* grad, float* momentum, int64_t n,
              const SgdConstants<float>&);
  void (*adam)(float* w, bfloat16* parameter, const float* grad, float* m, float* v, float* v_max,
               int64_t n, const AdamConstants<float>&);
};

}  // namespace tilegrad::cpu
