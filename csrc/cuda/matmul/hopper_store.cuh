// SPDX-License-Identifier: MIT
// How the sums of a warpgroup leave rung 10: by the copy engine, or as pieces of a sum over k.
//
// Math:        z = alpha sum + bias[j], c = f(z), as in epilogue.cuh and with its bits.
// Shapes:      a warp has 16 rows and kN columns of c in wgmma's fragments: thread (g, t) of it has
//              row g + 8 r, column 8 j + 2 t + e at sum[4 j + 2 r + e].
// Parallelism: each warp by itself. It packs 128 bytes of each row into a box in shared memory and
//              one lane starts its store; the next box is packed meanwhile, and the engine still
//              writes while the next tile is multiplied.
// Memory:      boxes in the 128-byte swizzle: a warp's words, or half a warp's pairs of
//              floats, meet every bank once.
//              c leaves in full lines. Pieces leave as float pairs, 32 bytes a
//              quad of lanes.
#pragma once

#include "../ptx/fence.cuh"
#include "epilogue.cuh"
#include "hopper_operand.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

struct HopperMaps {
  TensorMap a, b;
  TensorMap c, preactivation;  // unused where c does not leave by the engine
};

inline constexpr int kBoxRows = 16, kBoxBytes = kBoxRows * 128;

// The map of a matrix that leaves in a warp's boxes.
template <class T>
TensorMap box_map(const Matrix<T>& c, const MatmulSize& size) {
  return make_tensor_map(c.data, {3,
                                  {size.n, size.m, size.batch},
                                  {1, c.row_stride, c.batch_stride},
                                  {128 / sizeof(T), kBoxRows, 1},
                                  sizeof(T) == 2 ? TensorElement::bits16 : TensorElement::float32});
}

// A warp's two boxes, filled in turn.
template <class T>
class BoxStore {
  static constexpr int kCols = 128 / sizeof(T);  // of a box
  static constexpr int kCount = kCols / 2;       // elements of a thread in it

 public:
  // boxes: 2 kBoxBytes of shared memory, a multiple of 1024, of this warp alone.
  __device__ explicit BoxStore(unsigned char* boxes)
      : boxes_(boxes), lane_(static_cast<int>(threadIdx.x) % 32) {}

  // Finishes and stores the warp's sums, whose first element is `first` of c.
  template <int kN>
  __device__ void store(const MatmulProblem<T>& problem, const HopperMaps& maps,
                        const TilePosition& first, const float (&sum)[kN / 2]) {
    const Activation& activation = problem.epilogue.activation;
    const bool relu = activation.kind == ActivationKind::relu;
    const bool none = activation.kind == ActivationKind::identity;
    if (problem.epilogue.preactivation == nullptr && none && problem.epilogue.bias == nullptr) {
#pragma unroll
      for (int part = 0; part < kN / kCols; ++part) {
        float z[kCount];
#pragma unroll
        for (int i = 0; i < kCount; ++i) z[i] = fma(problem.alpha, sum[kCount * part + i], -0.0f);
        send(problem.size, maps.c, first, kCols * part, z);
      }
      return;
    }
    if (problem.epilogue.preactivation == nullptr && (relu || none)) {
#pragma unroll
      for (int part = 0; part < kN / kCols; ++part) {
        float z[kCount];
        scale(problem, first.col + kCols * part, z, [&](int i) { return sum[kCount * part + i]; });
#pragma unroll
        for (int i = 0; i < kCount; ++i) z[i] = relu ? Relu{}.value(z[i]) : z[i];
        send(problem.size, maps.c, first, kCols * part, z);
      }
      return;
    }
    // Long formulas: one copy of them in the code, so the sums of a box at a time are fetched to
    // the same registers.
#pragma unroll 1
    for (int part = 0; part < kN / kCols; ++part) {
      float z[kCount] = {};
#pragma unroll
      for (int p = 0; p < kN / kCols; ++p) {
        if (p == part) {
#pragma unroll
          for (int i = 0; i < kCount; ++i) z[i] = sum[kCount * p + i];
        }
      }
      scale(problem, first.col + kCols * part, z, [&](int i) { return z[i]; });
      if (problem.epilogue.preactivation != nullptr) {
        send(problem.size, maps.preactivation, first, kCols * part, z);
      }
      with_formula(activation, [&](const auto& f) {
#pragma unroll 1
        for (int turn = 0; turn < kCount / 4; ++turn) {
#pragma unroll
          for (int i = 0; i < 4; ++i) z[i] = f.value(z[i]);
          rotate<4>(z);
        }
      });
      send(problem.size, maps.c, first, kCols * part, z);
    }
  }

  // Waits until all that was stored is written.
  __device__ void finish() const {
    if (lane_ == 0) tma_store_wait<0>();
  }

 private:
  // z of a box's columns from `col` on, before the activation.
  template <class Sum>
  __device__ void scale(const MatmulProblem<T>& problem, int64_t col, float (&z)[kCount],
                        const Sum& sum) const {
    const bool any = problem.epilogue.bias != nullptr;
    const T* const bias = any ? problem.epilogue.bias + col : nullptr;
    const int64_t left = any ? problem.size.n - col : 0;
    const int count = left < kCols ? static_cast<int>(left) : kCols;
#pragma unroll
    for (int j = 0; j < kCols / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int at = 8 * j + lane_ % 4 * 2 + e;
        // -0 as in finish_sum.
        const float add = at < count ? widen(bias[at]) : -0.0f;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int i = 4 * j + 2 * r + e;
          z[i] = fma(problem.alpha, sum(i), add);
        }
      }
    }
  }

  __device__ void send(const MatmulSize& size, const TensorMap& map, const TilePosition& first,
                       int part, const float (&z)[kCount]) {
    if (first.row >= size.m || first.col + part >= size.n) return;
    unsigned char* const box = boxes_ + turn_ * kBoxBytes;
    turn_ ^= 1;
    if (lane_ == 0) tma_store_wait_read<1>();
    // The store before the last one has read this box.
    __syncwarp();
    pack(box, z);
    fence_proxy_async();
    // The box is full.
    __syncwarp();
    if (lane_ == 0) {
      tma_store_3d(box, map, static_cast<int>(first.col) + part, static_cast<int>(first.row),
                   static_cast<int>(first.batch));
      tma_store_commit();
    }
  }

  // Fills a box: its 16-byte chunk c of row r goes to chunk c ^ (r % 8).
  __device__ void pack(unsigned char* box, const float (&z)[kCount]) const {
    const int g = lane_ / 4, t = lane_ % 4;
    unsigned char* const line = box + g * 128;
#pragma unroll
    for (int j = 0; j < kCols / 8; ++j) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if constexpr (sizeof(T) == 2) {
          *reinterpret_cast<uint32_t*>(line + r * 1024 + (j ^ g) * 16 + t * 4) =
              narrow_pair<T>(z[4 * j + 2 * r], z[4 * j + 2 * r + 1]);
        } else {
          // A pair of lanes fills a chunk. Odd rows are two groups of 8 columns ahead: the chunks
          // of 4 rows that are stored at once would share banks otherwise.
          const bool odd = g % 2 != 0;
          const int near = 4 * j + 2 * r, far = 4 * (j ^ 2) + 2 * r;
          const int chunk = (2 * j + t / 2) ^ g ^ (odd ? 4 : 0);
          *reinterpret_cast<float2*>(line + r * 1024 + chunk * 16 + t % 2 * 8) =
              float2{odd ? z[far] : z[near], odd ? z[far + 1] : z[near + 1]};
        }
      }
    }
  }

  unsigned char* boxes_;
  int lane_;
  int turn_ = 0;
};

// Stores a warp's sums over a piece of k: `partial` is that piece's (batch, m, pitch).
template <int kN>
__device__ inline void store_partial(float* partial, int64_t pitch, const MatmulSize& size,
                                     const TilePosition& first, const float (&sum)[kN / 2]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int64_t row = first.row + lane / 4 + 8 * r;
    if (row >= size.m) continue;
    float* const out = partial + (first.batch * size.m + row) * pitch + first.col + lane % 4 * 2;
    const int64_t left = pitch - first.col;  // a multiple of 8
#pragma unroll
    for (int j = 0; j < kN / 8; ++j) {
      if (8 * j < left) {
        *reinterpret_cast<float2*>(out + 8 * j) =
            float2{sum[4 * j + 2 * r], sum[4 * j + 2 * r + 1]};
      }
    }
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
