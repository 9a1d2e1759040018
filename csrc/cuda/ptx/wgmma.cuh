// SPDX-License-Identifier: MIT
// wgmma: a warpgroup (4 warps, the first a multiple of 4) multiplies tiles that lie in shared
// memory, asynchronously: d (64, kN) += a (64, 16) b (16, kN) of 16-bit elements, or k = 8 of tf32;
// float sums.
//
// Order of use: wgmma_fence, wgmma_m64k16 or wgmma_m64k8_tf32 several times, wgmma_commit,
// wgmma_wait<0>. Until the wait no thread may touch d or overwrite the tiles. In the simulator d is
// NaN until the wait, and the wait faults where d was written or its function has returned.
//
// With w = warp % 4, g = lane / 4, t = lane % 4, d[4 j + 2 r + e] is row 16 w + g + 8 r, column
// 8 j + 2 t + e (PTX ISA, Register Fragments: accumulator D of wgmma.m64nNk16).
// Source: PTX ISA, Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions.
#pragma once

#include <type_traits>

#include "../../context.hpp"
#include "site.cuh"
#ifdef TILEGRAD_SIM
#include "wgmma_sim.hpp"
#endif

namespace tilegrad::TILEGRAD_BACKEND {

// Which index of an operand runs along the 128-byte rows of its tile: k, or m (of a) / n (of b).
enum class Major { k, mn };

// Describes a tile with 128-byte swizzle (PTX ISA, Matrix Descriptor Format and Canonical Layouts).
// Its rows are 128 bytes; 8 of them, 1024 bytes, are one atom of the swizzle.
//   k-major:  row i is index i of m or n. stride_bytes: from 8 rows to the next 8. The step to the
//             next 16 of k is 32 bytes in `tile`. leading_bytes means nothing.
//   mn-major: row p is index p of k, 64 of m or n along it. stride_bytes: from 8 of k to the next
//             8; leading_bytes: from 64 of m or n to the next 64.
__device__ inline uint64_t wgmma_descriptor(const void* tile, uint32_t leading_bytes,
                                            uint32_t stride_bytes) {
  const auto encode = [](uint32_t x) { return static_cast<uint64_t>((x & 0x3ffffu) >> 4); };
  return encode(shared_address(tile)) | encode(leading_bytes) << 16 | encode(stride_bytes) << 32 |
         uint64_t{1} << 62;
}

// Registers and shared memory written before are ordered before the wgmma that follow: before the
// first one, and whenever d was touched.
__device__ inline void wgmma_fence() {
#ifdef TILEGRAD_SIM
  detail::wgmma_fence();
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#else
  __trap();
#endif
}

// Closes a group: the wgmma of this warpgroup since the last one.
__device__ inline void wgmma_commit([[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  detail::wgmma_commit(site);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#else
  __trap();
#endif
}

// Waits until at most the newest kPending groups of this warpgroup are unfinished.
template <int kPending>
__device__ inline void wgmma_wait([[maybe_unused]] Site site = here()) {
#ifdef TILEGRAD_SIM
  detail::wgmma_wait(kPending, site);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(kPending) : "memory");
#else
  __trap();
#endif
}

// The compiler may not move a use of d to before this line: it follows the wait.
template <int kCount>
__device__ inline void wgmma_settle([[maybe_unused]] float (&d)[kCount]) {
#ifndef TILEGRAD_SIM
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
#endif
}

// The registers of d by number, then as operands.
// clang-format off
#define TILEGRAD_TEXT_32                                                                           \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                         \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define TILEGRAD_TEXT_64                                                                           \
  TILEGRAD_TEXT_32 ", "                                                                            \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "               \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define TILEGRAD_TEXT_128                                                                          \
  TILEGRAD_TEXT_64 ", "                                                                            \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "               \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "               \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "   \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define TILEGRAD_D8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), \
                       "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define TILEGRAD_D32(i) TILEGRAD_D8(i), TILEGRAD_D8(i + 8), TILEGRAD_D8(i + 16), TILEGRAD_D8(i + 24)
#define TILEGRAD_D64(i) TILEGRAD_D32(i), TILEGRAD_D32(i + 32)
#define TILEGRAD_D128(i) TILEGRAD_D64(i), TILEGRAD_D64(i + 64)
// One instruction: numbers %a and %b are those of the descriptors, %ta and %tb of the majors.
#define TILEGRAD_WGMMA(n, type, count, a_number, b_number, ta, tb)                              \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." #type "." #type " {"           \
               TILEGRAD_TEXT_##count "}, %" #a_number ", %" #b_number ", 1, 1, 1, %" #ta ", %" #tb ";" \
               : TILEGRAD_D##count(0)                                                           \
               : "l"(a), "l"(b), "n"(kMajorA == Major::mn ? 1 : 0),                             \
                 "n"(kMajorB == Major::mn ? 1 : 0)                                              \
               : "memory")
#define TILEGRAD_WGMMA_TF32(n, count, a_number, b_number)                                       \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" #n "k8.f32.tf32.tf32 {"                      \
               TILEGRAD_TEXT_##count "}, %" #a_number ", %" #b_number ", 1, 1, 1;"              \
               : TILEGRAD_D##count(0)                                                           \
               : "l"(a), "l"(b)                                                                 \
               : "memory")
// clang-format on

// d += a b with kN of 64, 128 or 256; T is bfloat16 or float16.
template <int kN, class T, Major kMajorA, Major kMajorB>
__device__ inline void wgmma_m64k16([[maybe_unused]] float (&d)[kN / 2],
                                    [[maybe_unused]] uint64_t a, [[maybe_unused]] uint64_t b,
                                    [[maybe_unused]] Site site = here()) {
  static_assert(kN == 64 || kN == 128 || kN == 256);
  constexpr bool kBfloat = std::is_same_v<T, bfloat16>;
  static_assert(kBfloat || std::is_same_v<T, float16>);
#ifdef TILEGRAD_SIM
  using Element = std::conditional_t<kBfloat, detail::WgmmaBfloat16, detail::WgmmaFloat16>;
  detail::wgmma<kN, Element, kMajorA == Major::mn, kMajorB == Major::mn>(d, a, b, site);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  if constexpr (kBfloat) {
    if constexpr (kN == 64) TILEGRAD_WGMMA(64, bf16, 32, 32, 33, 34, 35);
    if constexpr (kN == 128) TILEGRAD_WGMMA(128, bf16, 64, 64, 65, 66, 67);
    if constexpr (kN == 256) TILEGRAD_WGMMA(256, bf16, 128, 128, 129, 130, 131);
  } else {
    if constexpr (kN == 64) TILEGRAD_WGMMA(64, f16, 32, 32, 33, 34, 35);
    if constexpr (kN == 128) TILEGRAD_WGMMA(128, f16, 64, 64, 65, 66, 67);
    if constexpr (kN == 256) TILEGRAD_WGMMA(256, f16, 128, 128, 129, 130, 131);
  }
#else
  __trap();
#endif
}

// d += a b with kN of 64, 128 or 256, k = 8. The elements are float of which the low 13 bits are
// not read: round first (TensorElement::tf32). Both tiles are k-major, the only layout of 4 bytes.
template <int kN>
__device__ inline void wgmma_m64k8_tf32([[maybe_unused]] float (&d)[kN / 2],
                                        [[maybe_unused]] uint64_t a, [[maybe_unused]] uint64_t b,
                                        [[maybe_unused]] Site site = here()) {
  static_assert(kN == 64 || kN == 128 || kN == 256);
#ifdef TILEGRAD_SIM
  detail::wgmma<kN, detail::WgmmaTf32, false, false>(d, a, b, site);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  if constexpr (kN == 64) TILEGRAD_WGMMA_TF32(64, 32, 32, 33);
  if constexpr (kN == 128) TILEGRAD_WGMMA_TF32(128, 64, 64, 65);
  if constexpr (kN == 256) TILEGRAD_WGMMA_TF32(256, 128, 128, 129);
#else
  __trap();
#endif
}

#undef TILEGRAD_WGMMA_TF32
#undef TILEGRAD_WGMMA
#undef TILEGRAD_D128
#undef TILEGRAD_D64
#undef TILEGRAD_D32
#undef TILEGRAD_D8
#undef TILEGRAD_TEXT_128
#undef TILEGRAD_TEXT_64
#undef TILEGRAD_TEXT_32

}  // namespace tilegrad::TILEGRAD_BACKEND
