// SPDX-License-Identifier: MIT
// mma.sync: a warp multiplies fragments that it holds in registers, d (16, 8) += a (16, k) b (k,
// 8).
//
// With g = lane / 4 and t = lane % 4 (PTX ISA, Matrix Fragments for mma.m16n8k8 and m16n8k16):
//   d[2 r + e]           row g + 8 r,  col 2 t + e
//   k = 16, 16 bits      a[2 s + r]: row g + 8 r, cols 2 t + 8 s and the next, low half first
//                        b[s]:       rows 2 t + 8 s and the next, col g
//   k = 8, tf32          a[2 s + r]: row g + 8 r, col t + 4 s;   b[s]: row t + 4 s, col g
// Products are exact; the order and rounding of their sum are the hardware's. The simulator adds
// them in double and rounds once.
// Source: PTX ISA, Warp Level Matrix Multiply-Accumulate Instructions: mma.
#pragma once

#include "convert.cuh"
#include "site.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

#ifdef TILEGRAD_SIM
namespace detail {

struct MmaRecord {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};

// The two 16-bit elements of a register.
struct Bfloat16Pair {
  static constexpr int kElements = 2;
  static float element(uint32_t bits, int half) {
    return bits_to_float(half == 0 ? bits << 16 : bits & 0xffff0000u);
  }
};
struct Float16Pair {
  static constexpr int kElements = 2;
  static float element(uint32_t bits, int half) {
    return half_to_float(static_cast<uint16_t>(bits >> (16 * half)));
  }
};
// The instruction does not read the low 13 bits.
struct Tf32 {
  static constexpr int kElements = 1;
  static float element(uint32_t bits, int) { return bits_to_float(bits & 0xffffe000u); }
};

template <class Element>
inline void mma_sync(float* d, const uint32_t* a, const uint32_t* b, Site site) {
  MmaRecord mine{d, a, b};
  simulator::warp_collective(
      0xffffffffu, mine,
      [](MmaRecord* const* lanes, unsigned) {
        constexpr int kPack = Element::kElements;
        trace_flops(2 * 16 * 8 * 8 * kPack);
        float left[16][8 * kPack], right[8][8 * kPack];
        for (int lane = 0; lane < 32; ++lane) {
          const int g = lane / 4, t = lane % 4;
          for (int s = 0; s < 2; ++s) {
            for (int e = 0; e < kPack; ++e) {
              const int p = kPack * (t + 4 * s) + e;
              left[g][p] = Element::element(lanes[lane]->a[2 * s], e);
              left[g + 8][p] = Element::element(lanes[lane]->a[2 * s + 1], e);
              right[g][p] = Element::element(lanes[lane]->b[s], e);
            }
          }
        }
        for (int lane = 0; lane < 32; ++lane) {
          for (int i = 0; i < 4; ++i) {
            const int row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
            double sum = lanes[lane]->d[i];
            for (int p = 0; p < 8 * kPack; ++p) sum += double{left[row][p]} * right[col][p];
            lanes[lane]->d[i] = static_cast<float>(sum);
          }
        }
      },
      "mma.sync", site);
}

}  // namespace detail
#endif

// bfloat16, k = 16.
__device__ inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[2],
                                         [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  detail::mma_sync<detail::Bfloat16Pair>(d, a, b, site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}

// float16, k = 16.
__device__ inline void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4],
                                        const uint32_t (&b)[2],
                                        [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  detail::mma_sync<detail::Float16Pair>(d, a, b, site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}

// tf32, k = 8: float32 of which 10 bits of significand count (see float_to_tf32).
__device__ inline void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4],
                                        const uint32_t (&b)[2],
                                        [[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  detail::mma_sync<detail::Tf32>(d, a, b, site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}

// Rounded to tf32, ties away from zero (PTX ISA, cvt.rna.tf32): bits that mma reads as they are.
__device__ inline uint32_t float_to_tf32(uint32_t bits) {
#ifdef TILEGRAD_SIM
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7fffe000u;  // NaN
  if (magnitude == 0x7f800000u) return bits;
  return (bits + 0x1000u) & 0xffffe000u;  // a carry into the exponent is the right result
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32_t result;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(bits_to_float(bits)));
  return result;
#else
  __trap();
  return bits;
#endif
}

}  // namespace tilegrad::TILEGRAD_BACKEND
