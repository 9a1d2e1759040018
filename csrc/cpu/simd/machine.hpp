// SPDX-License-Identifier: MIT
// What the machine can do at most, measured by the instructions that the kernels use.
#pragma once

#include <cstdint>

namespace tilegrad::cpu {

template <class T>
struct MachineKernels {
  // Runs `rounds` rounds of independent multiply-adds held in registers; returns the number of
  // floating-point operations done. *sink keeps the compiler from dropping them.
  double (*multiply_add)(int64_t rounds, T* sink);
};

}  // namespace tilegrad::cpu
