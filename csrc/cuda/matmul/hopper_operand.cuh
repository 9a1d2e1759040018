// SPDX-License-Identifier: MIT
// The parts of a kernel in which TMA feeds wgmma: operand tiles in shared memory, and the ring.
//
// Shapes:      an operand tile is kX rows (of a) or columns (of b) by 128 bytes of p:
//              64 elements of 16 bits, or 32 floats that the engine rounds to
//              tf32.
// Memory:      128-byte rows in the 128-byte swizzle that wgmma reads without bank conflicts. Row-
//              and column-major operands are read as they are (Major), floats k-major only; what
//              lies outside an operand arrives as zeros and costs no traffic.
// Source:      PTX ISA, wgmma and cp.async.bulk.tensor.
#pragma once

#include "../ptx/mbarrier.cuh"
#include "../ptx/tma.cuh"
#include "../ptx/wgmma.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// A k-major tile is one box of kX rows of 128 bytes of p. An mn-major tile is kX / 64 slabs of 8
// KB, each a box of 64 rows (p) of 64 x.
template <class T, Major kMajor, int kX>
struct HopperOperand {
  static_assert(sizeof(T) == 2 || kMajor == Major::k);
  static constexpr int kSlab = 64 * 128;

  static TensorMap map(const void* data, int64_t x_stride, int64_t p_stride, int64_t batch_stride,
                       int64_t x_count, int64_t k, int64_t batch) {
    if constexpr (kMajor == Major::k) {
      return make_tensor_map(data, {3,
                                    {k, x_count, batch},
                                    {1, x_stride, batch_stride},
                                    {128 / sizeof(T), kX, 1},
                                    sizeof(T) == 2 ? TensorElement::bits16 : TensorElement::tf32});
    } else {
      return make_tensor_map(data,
                             {3, {x_count, k, batch}, {1, p_stride, batch_stride}, {64, 64, 1}});
    }
  }

  // Starts the copies of the tile at (x, p) of matrix z, for all kBlocks blocks of the cluster.
  template <int kBlocks = 1>
  __device__ static void load(unsigned char* tile, const TensorMap& map, int x, int p, int z,
                              uint64_t* full) {
    const auto box = [&](unsigned char* to, int at_x, int at_y) {
      if constexpr (kBlocks > 1) {
        tma_load_3d_multicast(to, map, at_x, at_y, z, full, (1u << kBlocks) - 1);
      } else {
        tma_load_3d(to, map, at_x, at_y, z, full);
      }
    };
    if constexpr (kMajor == Major::k) {
      box(tile, p, x);
    } else {
#pragma unroll
      for (int slab = 0; slab < kX / 64; ++slab) box(tile + slab * kSlab, x + 64 * slab, p);
    }
  }

  // Of the tile from x on (a multiple of 64) and the step-th 32 bytes of p.
  __device__ static uint64_t descriptor(const unsigned char* tile, int x, int step) {
    const unsigned char* const start = tile + x / 64 * kSlab;
    return kMajor == Major::k ? wgmma_descriptor(start + 32 * step, 16, 1024)
                              : wgmma_descriptor(start + 2048 * step, kSlab, 1024);
  }
};

// sum += a b of 32 bytes of p.
template <int kN, class T, Major kMajorA, Major kMajorB>
__device__ inline void wgmma_step(float (&sum)[kN / 2], uint64_t a, uint64_t b) {
  if constexpr (sizeof(T) == 2) {
    wgmma_m64k16<kN, T, kMajorA, kMajorB>(sum, a, b);
  } else {
    wgmma_m64k8_tf32<kN>(sum, a, b);
  }
}

// Where a role is in the ring: the stage, and the parity of the phase that it is in.
template <int kStages>
struct RingPosition {
  int stage = 0;
  uint32_t parity = 0;

  __device__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

}  // namespace tilegrad::TILEGRAD_BACKEND
