// SPDX-License-Identifier: MIT
// ldmatrix: a warp loads 8x8 matrices of 16-bit elements from shared memory into fragments.
//
// Lane 8 i + r passes the address of row r of matrix i: 16 bytes, aligned to 16. Register i of lane
// l then holds elements 2 (l % 4) and 2 (l % 4) + 1 of row l / 4 of matrix i (low half first); with
// `trans`, of the transposed matrix. For elements of 32 bits the 8x8 matrix is one of 8x4 of them,
// and the register holds element l % 4 of row l / 4.
// Source: PTX ISA, Warp Level Matrix Multiply-Accumulate Instructions: ldmatrix.
#pragma once

#include <cstring>

#include "site.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

#ifdef TILEGRAD_SIM
namespace detail {

struct LdmatrixRecord {
  const void* row;
  uint32_t* registers;
};

template <int kCount, bool kTranspose>
inline void ldmatrix(uint32_t* registers, const void* row, Site site) {
  if (simulator::current_lane() < 8 * kCount) {
    check_shared(row, 16, "ldmatrix", site);
    trace_access("ldmatrix", site, row, 16, false);
  }
  LdmatrixRecord mine{row, registers};
  simulator::warp_collective(
      0xffffffffu, mine,
      [](LdmatrixRecord* const* lanes, unsigned) {
        for (int i = 0; i < kCount; ++i) {
          uint16_t matrix[8][8];
          for (int r = 0; r < 8; ++r) std::memcpy(matrix[r], lanes[8 * i + r]->row, 16);
          for (int lane = 0; lane < 32; ++lane) {
            const int r = lane / 4, c = lane % 4 * 2;
            const uint32_t low = kTranspose ? matrix[c][r] : matrix[r][c];
            const uint32_t high = kTranspose ? matrix[c + 1][r] : matrix[r][c + 1];
            lanes[lane]->registers[i] = low | high << 16;
          }
        }
      },
      "ldmatrix", site);
}

}  // namespace detail
#endif

// One matrix: rows from lanes 0 to 7.
__device__ inline void ldmatrix_x1(uint32_t (&registers)[1], const void* row,
                                   [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  detail::ldmatrix<1, false>(registers, row, site);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
               : "=r"(registers[0])
               : "r"(shared_address(row))
               : "memory");
#endif
}

// Two matrices: rows from lanes 0 to 15.
__device__ inline void ldmatrix_x2(uint32_t (&registers)[2], const void* row,
                                   [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  detail::ldmatrix<2, false>(registers, row, site);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(registers[0]), "=r"(registers[1])
               : "r"(shared_address(row))
               : "memory");
#endif
}

// Four matrices: rows from all lanes.
__device__ inline void ldmatrix_x4(uint32_t (&registers)[4], const void* row,
                                   [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  detail::ldmatrix<4, false>(registers, row, site);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(shared_address(row))
               : "memory");
#endif
}

// As ldmatrix_x1, each matrix transposed.
__device__ inline void ldmatrix_x1_trans(uint32_t (&registers)[1], const void* row,
                                         [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  detail::ldmatrix<1, true>(registers, row, site);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
               : "=r"(registers[0])
               : "r"(shared_address(row))
               : "memory");
#endif
}

// As ldmatrix_x2, each matrix transposed.
__device__ inline void ldmatrix_x2_trans(uint32_t (&registers)[2], const void* row,
                                         [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  detail::ldmatrix<2, true>(registers, row, site);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(registers[0]), "=r"(registers[1])
               : "r"(shared_address(row))
               : "memory");
#endif
}

// As ldmatrix_x4, each matrix transposed.
__device__ inline void ldmatrix_x4_trans(uint32_t (&registers)[4], const void* row,
                                         [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  detail::ldmatrix<4, true>(registers, row, site);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(shared_address(row))
               : "memory");
#endif
}

}  // namespace tilegrad::TILEGRAD_BACKEND
