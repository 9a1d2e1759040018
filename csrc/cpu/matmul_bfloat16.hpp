// SPDX-License-Identifier: MIT
// Products of bfloat16 matrices beyond what ops.hpp has: sums that are not rounded.
#pragma once

#include "../ops.hpp"

namespace tilegrad::cpu {

// c = alpha a b + beta c, not rounded to bfloat16. Strides and edges as for matmul.
void matmul_to_float(Context& context, Matrix<float> c, Matrix<const bfloat16> a,
                     Matrix<const bfloat16> b, MatmulSize size, double alpha = 1, double beta = 0);

}  // namespace tilegrad::cpu
