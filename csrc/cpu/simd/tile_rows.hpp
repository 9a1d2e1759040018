// SPDX-License-Identifier: MIT
// How many rows a register tile of a product has.
#pragma once

namespace tilegrad::cpu::TILEGRAD_ISA {

// Accumulators, one row of B and a broadcast of A must fit the registers: 32, or 16 before AVX-512.
constexpr int max_rows(int vectors) {
#if defined(TILEGRAD_ISA_AVX512)
  constexpr int kRows[] = {0, 14, 14, 0, 6};
#elif defined(TILEGRAD_ISA_AVX2)
  constexpr int kRows[] = {0, 6, 6, 0, 2};
#else
  constexpr int kRows[] = {0, 4, 4, 0, 2};
#endif
  return kRows[vectors];
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
