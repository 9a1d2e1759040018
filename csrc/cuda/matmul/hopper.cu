// SPDX-License-Identifier: MIT
#include "hopper_launch.cuh"
#include "needs.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

template <class T>
bool matmul_hopper(Context& context, const MatmulProblem<T>& problem) {
  if constexpr (sizeof(T) != 2) {
    return false;
  } else {
    if (!hopper_needs(problem, device_info().compute_capability).empty()) return false;
    start_hopper(context, problem);
    return true;
  }
}

template bool matmul_hopper(Context&, const MatmulProblem<float>&);
template bool matmul_hopper(Context&, const MatmulProblem<double>&);
template bool matmul_hopper(Context&, const MatmulProblem<bfloat16>&);
template bool matmul_hopper(Context&, const MatmulProblem<float16>&);

}  // namespace tilegrad::TILEGRAD_BACKEND
