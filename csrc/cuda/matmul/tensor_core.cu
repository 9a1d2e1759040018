// SPDX-License-Identifier: MIT
#include "tensor_core.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

template <class T>
bool matmul_tensor_core(Context& context, const MatmulProblem<T>& problem) {
  if constexpr (std::is_same_v<T, double>) {
    return false;
  } else {
    if (device_info().compute_capability < 80) return false;
    start_tensor_core<T, OneProduct<T>>(context, problem);
    return true;
  }
}

template bool matmul_tensor_core(Context&, const MatmulProblem<float>&);
template bool matmul_tensor_core(Context&, const MatmulProblem<double>&);
template bool matmul_tensor_core(Context&, const MatmulProblem<bfloat16>&);
template bool matmul_tensor_core(Context&, const MatmulProblem<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
