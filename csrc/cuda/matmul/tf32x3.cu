// SPDX-License-Identifier: MIT
// Rung 11: float32 on tensor cores with the accuracy of float32, "3xTF32".
//
// Math:        x = big + small + rest of tf32, |rest| <= 2^-23 |x|, |small| <= 2^-11 |x|. Of a b
//              what is not multiplied, small small and the rests, is at most 2^-21 |a b|. Sums in
//              float, k in steps of 8: |error| <= (2^-21 + (k / 8 + 3) 2^-24) sum |a| |b|, where a
//              chain of fma has k 2^-24. (The 3: what the tensor cores' sum of a step may lose.)
//              Infinities and NaN act as in float32, but that a product of finite numbers which
//              overflows may be NaN. Parts below float's normal numbers (small is, of a number
//              below 2^-103) may count as 0.
// Shapes:      tiles and ring of rung 9, whose kernel this is with ThreeProducts.
// Parallelism: as there; 3 mma where that has one.
// Memory:      as there: parts are made in registers, shared memory holds float.
// Source:      Ootomo and Yokota, Recovering single precision accuracy from Tensor Cores (2022);
//              CUTLASS, 3xTF32.
#include "tensor_core.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

template <class T>
bool matmul_tf32x3(Context& context, const MatmulProblem<T>& problem) {
  if constexpr (!std::is_same_v<T, float>) {
    return false;
  } else {
    if (device_info().compute_capability < 80) return false;
    start_tensor_core<T, ThreeProducts>(context, problem);
    return true;
  }
}

template bool matmul_tf32x3(Context&, const MatmulProblem<float>&);
template bool matmul_tf32x3(Context&, const MatmulProblem<double>&);
template bool matmul_tf32x3(Context&, const MatmulProblem<bfloat16>&);
template bool matmul_tf32x3(Context&, const MatmulProblem<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
