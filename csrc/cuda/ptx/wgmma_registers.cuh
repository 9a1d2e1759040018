// SPDX-License-Identifier: MIT
// wgmma whose operand a lies in registers: d (64, kN) += a (64, 16) b (16, kN), 16-bit elements,
// float sums. The order of use is wgmma.cuh's; until the wait no thread may write a either, nor
// may its array end: the simulator faults at the wait.
//
// A thread's part of a (64, 16 kSteps) is pairs of elements, 2 kSteps columns of 8, two rows each:
// a[2 j + r] holds elements 8 j + 2 t and 8 j + 2 t + 1 (low half first) of row 16 w + g + 8 r. So
// a pair lies where wgmma.cuh's d has its two sums: d[4 j + 2 r] and the next.
// Source: PTX ISA, Register Fragments for wgmma.mma_async.m64nNk16: matrix A.
#pragma once

#include "wgmma.cuh"
#ifdef TILEGRAD_SIM
#include "wgmma_registers_sim.hpp"
#endif

namespace tilegrad::TILEGRAD_BACKEND {

// clang-format off
#define TILEGRAD_TEXT_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define TILEGRAD_TEXT_16 TILEGRAD_TEXT_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define TILEGRAD_TEXT_32                                                                           \
  TILEGRAD_TEXT_16 ", "                                                                            \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define TILEGRAD_TEXT_64                                                                           \
  TILEGRAD_TEXT_32 ", "                                                                            \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "               \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define TILEGRAD_D8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), \
                       "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define TILEGRAD_D16(i) TILEGRAD_D8(i), TILEGRAD_D8(i + 8)
#define TILEGRAD_D32(i) TILEGRAD_D16(i), TILEGRAD_D16(i + 16)
#define TILEGRAD_D64(i) TILEGRAD_D32(i), TILEGRAD_D32(i + 32)
// One instruction; the numbers are those of the four registers of a, of b and of its major.
#define TILEGRAD_WGMMA(n, type, count, a0, a1, a2, a3, b_number, tb)                               \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." #type "." #type " {"              \
               TILEGRAD_TEXT_##count "}, {%" #a0 ", %" #a1 ", %" #a2 ", %" #a3 "}, %" #b_number    \
               ", 1, 1, 1, %" #tb ";"                                                              \
               : TILEGRAD_D##count(0)                                                              \
               : "r"(a[4 * kStep]), "r"(a[4 * kStep + 1]), "r"(a[4 * kStep + 2]),                  \
                 "r"(a[4 * kStep + 3]), "l"(b), "n"(kMajorB == Major::mn ? 1 : 0)                  \
               : "memory")
// clang-format on

// d += a b with kN of 16, 32, 64 or 128, of the kStep-th 16 columns of a; T is bfloat16 or float16.
template <int kN, class T, Major kMajorB, int kStep, int kCount>
__device__ inline void wgmma_m64k16_registers([[maybe_unused]] float (&d)[kN / 2],
                                              [[maybe_unused]] const uint32_t (&a)[kCount],
                                              [[maybe_unused]] uint64_t b,
                                              [[maybe_unused]] Site site = here()) {
  static_assert(kN == 16 || kN == 32 || kN == 64 || kN == 128);
  static_assert(4 * kStep + 4 <= kCount);
  constexpr bool kBfloat = std::is_same_v<T, bfloat16>;
  static_assert(kBfloat || std::is_same_v<T, float16>);
#ifdef TILEGRAD_SIM
  using Element = std::conditional_t<kBfloat, detail::WgmmaBfloat16, detail::WgmmaFloat16>;
  detail::wgmma_registers<kN, Element, kMajorB == Major::mn>(d, a + 4 * kStep, b, site);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  if constexpr (kBfloat) {
    if constexpr (kN == 16) TILEGRAD_WGMMA(16, bf16, 8, 8, 9, 10, 11, 12, 13);
    if constexpr (kN == 32) TILEGRAD_WGMMA(32, bf16, 16, 16, 17, 18, 19, 20, 21);
    if constexpr (kN == 64) TILEGRAD_WGMMA(64, bf16, 32, 32, 33, 34, 35, 36, 37);
    if constexpr (kN == 128) TILEGRAD_WGMMA(128, bf16, 64, 64, 65, 66, 67, 68, 69);
  } else {
    if constexpr (kN == 16) TILEGRAD_WGMMA(16, f16, 8, 8, 9, 10, 11, 12, 13);
    if constexpr (kN == 32) TILEGRAD_WGMMA(32, f16, 16, 16, 17, 18, 19, 20, 21);
    if constexpr (kN == 64) TILEGRAD_WGMMA(64, f16, 32, 32, 33, 34, 35, 36, 37);
    if constexpr (kN == 128) TILEGRAD_WGMMA(128, f16, 64, 64, 65, 66, 67, 68, 69);
  }
#else
  __trap();
#endif
}

// d += a b for all columns of a; descriptor(step) is that of the step-th 16 rows of b.
template <int kN, class T, Major kMajorB, int kStep = 0, int kCount, class Descriptor>
__device__ inline void wgmma_chain(float (&d)[kN / 2], const uint32_t (&a)[kCount],
                                   Descriptor descriptor, Site site = here()) {
  wgmma_m64k16_registers<kN, T, kMajorB, kStep>(d, a, descriptor(kStep), site);
  if constexpr (4 * kStep + 4 < kCount) {
    wgmma_chain<kN, T, kMajorB, kStep + 1>(d, a, descriptor, site);
  }
}

// sums (64, 8) += a b with both operands in shared memory, a mn-major and b k-major.
template <class T>
__device__ inline void wgmma_m64n8k16_sums([[maybe_unused]] float (&d)[4],
                                           [[maybe_unused]] uint64_t a, [[maybe_unused]] uint64_t b,
                                           [[maybe_unused]] Site site = here()) {
  constexpr bool kBfloat = std::is_same_v<T, bfloat16>;
  static_assert(kBfloat || std::is_same_v<T, float16>);
#ifdef TILEGRAD_SIM
  using Element = std::conditional_t<kBfloat, detail::WgmmaBfloat16, detail::WgmmaFloat16>;
  detail::wgmma<8, Element, true, false>(d, a, b, site);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define TILEGRAD_SUMS(type)                                                 \
  asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32." #type "." #type \
               " {%0, %1, %2, %3}, %4, %5, 1, 1, 1, 1, 0;"                  \
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])             \
               : "l"(a), "l"(b)                                             \
               : "memory")
  if constexpr (kBfloat) {
    TILEGRAD_SUMS(bf16);
  } else {
    TILEGRAD_SUMS(f16);
  }
#undef TILEGRAD_SUMS
#else
  __trap();
#endif
}

#undef TILEGRAD_WGMMA
#undef TILEGRAD_D64
#undef TILEGRAD_D32
#undef TILEGRAD_D16
#undef TILEGRAD_D8
#undef TILEGRAD_TEXT_64
#undef TILEGRAD_TEXT_32
#undef TILEGRAD_TEXT_16
#undef TILEGRAD_TEXT_8

}  // namespace tilegrad::TILEGRAD_BACKEND
