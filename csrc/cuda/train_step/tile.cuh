// SPDX-License-Identifier: MIT
// A tile of a product by one block, its sums left in shared memory.
//
// Math:        sum[i,j] = sum_p a[i,p] b[j,p], float32, fused multiply-adds.
// Shapes:      a (m, k) and b (n, k), each contiguous along p or along its own axis.
// Parallelism: 8 warps; a warp has 4 kLaneRows x 32 sums and a slice of every stage's p, a lane
//              kLaneRows x 4 sums. The slices' sums lie side by side; who reads them adds them in
//              order. The order of all additions follows from the tile's shape.
// Memory:      ring of stages filled by cp.async, 16 bytes at a time where rows of a and b are
//              made of whole groups of 16 bytes, else 4; that of the next tile fills while the
//              sums of this one are used. Rows along p are padded by 16 bytes: no bank conflict.
//              What lies outside of a or b is zero and not read.
#pragma once

#include "../launch.cuh"
#include "../numeric.cuh"
#include "../ptx/cp_async.cuh"
#include "../vector_io.cuh"

namespace tilegrad::TILEGRAD_BACKEND::step {

inline constexpr int kThreads = 256;

// x is the operand's own axis: rows of a, columns of the result of b. Sizes and offsets fit 32
// bits: takes_network_step sees to it.
struct Operand {
  const float* data;
  int pitch;  // elements between rows of memory
  int count;  // along x
  bool wide;  // rows of memory are whole, aligned groups of 4
};
__device__ inline Operand operand(const float* data, int64_t pitch, int64_t count) {
  return {data, static_cast<int>(pitch), static_cast<int>(count),
          pitch % 4 == 0 && packet_aligned(data)};
}

template <int kLaneRowsValue, int kWarpsM, int kWarpsN, int kSlicesValue, int kSliceValue,
          int kStagesValue>
struct TileShape {
  static constexpr int kLaneRows = kLaneRowsValue, kLaneCols = 4;
  static constexpr int kM = 4 * kLaneRows * kWarpsM, kN = 8 * kLaneCols * kWarpsN;
  static constexpr int kSlices = kSlicesValue, kSlice = kSliceValue, kK = kSlices * kSlice;
  static constexpr int kStages = kStagesValue;
  static constexpr int kStage = (kM + kN) * (kK + 4);  // floats
  static constexpr int kSumPitch = kN + 8;             // rows of neighbouring lanes: other banks
  static constexpr int kSums = kSlices * kM * kSumPitch;
  static_assert(kWarpsM * kWarpsN * kSlices * kWarpSize == kThreads);
  static_assert(kN == 32 || kN == 64);
};
using SmallTile = TileShape<4, 1, 1, 8, 8, 4>;   // (16, 32), 64 of p a stage
using MediumTile = TileShape<8, 1, 1, 8, 8, 3>;  // (32, 32), 64
using LargeTile = TileShape<8, 2, 2, 2, 16, 3>;  // (64, 64), 32

// Shared memory in floats: the ring, then the sums.
inline constexpr int kRingFloats = LargeTile::kStages * LargeTile::kStage;
inline constexpr int kTileFloats = kRingFloats + MediumTile::kSums;
static_assert(kRingFloats >= SmallTile::kStages * SmallTile::kStage &&
              kRingFloats >= MediumTile::kStages * MediumTile::kStage);
static_assert(MediumTile::kSums >= SmallTile::kSums && MediumTile::kSums >= LargeTile::kSums);

static_assert(SmallTile::kSlices == 8 && MediumTile::kSlices == 8 && LargeTile::kSlices == 2);

// The sums of a tile: (2 or 8 slices, m, pitch), of element (i, j) one for each slice.
struct TileSums {
  const float* data;  // shared memory, and the compiler knows: no shape of tile has chosen it
  int m, log_n, pitch;
  bool many_slices;

  __device__ int row(int e) const { return e >> log_n; }
  __device__ int col(int e) const { return e & ((1 << log_n) - 1); }
  __device__ int count() const { return m << log_n; }

  // Of elements e, e + kThreads, ...; of those past the end any value.
  template <int kCount>
  __device__ void get(float (&sum)[kCount], int e) const {
    many_slices ? add_slices<8>(sum, e) : add_slices<2>(sum, e);
  }

 private:
  template <int kSlices, int kCount>
  __device__ void add_slices(float (&sum)[kCount], int e) const {
#pragma unroll
    for (int r = 0; r < kCount; ++r) {
      const int own = e + r * kThreads < count() ? e + r * kThreads : 0;
      const float* const p = data + row(own) * pitch + col(own);
      sum[r] = 0;
#pragma unroll
      for (int s = 0; s < kSlices; ++s) sum[r] += p[s * m * pitch];
    }
  }
};

// An operand's part of a stage: (kX, kK + 4) where p is contiguous, else (kK, kX).
template <int kX, int kK, bool kAlongP>
struct OperandStage {
  static constexpr int kPitch = kAlongP ? kK + 4 : kX;

  template <int kRun>
  __device__ static void load_runs(float* stage, const Operand& from, int x, int p, int k) {
    constexpr int kFast = (kAlongP ? kK : kX) / kRun;
    constexpr int kRuns = kX * kK / kRun;
    static_assert(kRuns % kThreads == 0);
    [[maybe_unused]] constexpr int kUnroll = kRun == 4 ? kRuns / kThreads : 1;
#pragma unroll kUnroll
    for (int i = 0; i < kRuns / kThreads; ++i) {
      const int run = i * kThreads + static_cast<int>(threadIdx.x);
      const int fast = run % kFast * kRun, slow = run / kFast;
      const int at_x = x + (kAlongP ? slow : fast), at_p = p + (kAlongP ? fast : slow);
      const int offset = kAlongP ? at_x * from.pitch + at_p : at_p * from.pitch + at_x;
      cp_async_zfill<4 * kRun>(stage + slow * kPitch + fast, from.data + offset,
                               at_x < from.count && at_p < k);
    }
  }
  __device__ static void load(float* stage, const Operand& from, int x, int p, int k) {
    from.wide ? load_runs<4>(stage, from, x, p, k) : load_runs<1>(stage, from, x, p, k);
  }

  // values[q][e]: elements e of a lane at 4 steps of p. The lanes of a warp along x are kLanes: a
  // lane has every kLanes-th x where p is contiguous, else groups of 4 neighbours.
  template <int kCount, int kLanes>
  __device__ static void fragment(float (&values)[4][kCount], const float* stage, int lane, int p) {
    if constexpr (kAlongP) {
#pragma unroll
      for (int e = 0; e < kCount; ++e) {
        const float4 four =
            *reinterpret_cast<const float4*>(stage + (lane + e * kLanes) * kPitch + p);
        values[0][e] = four.x;
        values[1][e] = four.y;
        values[2][e] = four.z;
        values[3][e] = four.w;
      }
    } else {
#pragma unroll
      for (int q = 0; q < 4; ++q) {
#pragma unroll
        for (int e = 0; e < kCount; e += 4) {
          const float4 four = *reinterpret_cast<const float4*>(stage + (p + q) * kPitch +
                                                               (lane + e / 4 * kLanes) * 4);
          values[q][e] = four.x;
          values[q][e + 1] = four.y;
          values[q][e + 2] = four.z;
          values[q][e + 3] = four.w;
        }
      }
    }
  }
  template <int kLanes>
  __device__ static constexpr int place(int lane, int e) {
    return kAlongP ? lane + e * kLanes : (lane + e / 4 * kLanes) * 4 + e % 4;
  }
};

// The product of one shape of tile; all threads of the block call its functions. start() and
// finish() of a tile at (i, j) alternate.
template <class Shape, bool kAAlongP, bool kBAlongP>
class TileProduct {
 public:
  __device__ TileProduct(float* shared, const Operand& a, const Operand& b, int k)
      : shared_(shared), a_(a), b_(b), k_(k), steps_((k + Shape::kK - 1) / Shape::kK) {}

  // The ring is free: every thread has passed a barrier since it was read.
  __device__ void start(int i, int j) const {
#pragma unroll 1
    for (int step = 0; step < kStages - 1; ++step) fill(step, i, j);
  }

  // Leaves the sums at shared + kRingFloats, complete for all threads; the ring is free.
  __device__ void finish(int i, int j) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const int slice = warp % Shape::kSlices, place = warp / Shape::kSlices;
    const int warp_col = place % (Shape::kN / kWarpN) * kWarpN;
    const int warp_row = place / (Shape::kN / kWarpN) * kWarpM;
    const int lane_row = lane / 8, lane_col = lane % 8;
    const int row_offset = warp_row * (kAAlongP ? A::kPitch : 1);
    const int col_offset = kOffsetB + warp_col * (kBAlongP ? B::kPitch : 1);
    float sum[kRows][kCols] = {};
    for (int step = 0; step < steps_; ++step) {
      cp_async_wait<kStages - 2>();
      // Every thread's copies of this stage have come, and the stage to fill next has been read.
      __syncthreads();
      fill(step + kStages - 1, i, j);
      const float* const stage = shared_ + step % kStages * Shape::kStage;
#pragma unroll
      for (int part = 0; part < Shape::kSlice; part += 4) {
        const int p = slice * Shape::kSlice + part;
        float x[4][kRows], y[4][kCols];
        A::template fragment<kRows, 4>(x, stage + row_offset, lane_row, p);
        B::template fragment<kCols, 8>(y, stage + col_offset, lane_col, p);
#pragma unroll
        for (int q = 0; q < 4; ++q) {
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
#pragma unroll
            for (int c = 0; c < kCols; ++c) sum[r][c] = fma(x[q][r], y[q][c], sum[r][c]);
          }
        }
      }
    }
    cp_async_wait<0>();
    float* const sums = shared_ + kRingFloats;
    float* const own = sums + slice * Shape::kM * Shape::kSumPitch + warp_col;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float* const row = own + (warp_row + A::template place<4>(lane_row, r)) * Shape::kSumPitch;
      if constexpr (kBAlongP) {
#pragma unroll
        for (int c = 0; c < kCols; ++c) row[B::template place<8>(lane_col, c)] = sum[r][c];
      } else {
        *reinterpret_cast<float4*>(row + 4 * lane_col) =
            make_float4(sum[r][0], sum[r][1], sum[r][2], sum[r][3]);
      }
    }
    // The sums are complete, and the ring has been read.
    __syncthreads();
  }
  __device__ static TileSums sums(const float* shared) {
    return {shared + kRingFloats, Shape::kM, Shape::kN == 32 ? 5 : 6, Shape::kSumPitch,
            Shape::kSlices == 8};
  }

 private:
  using A = OperandStage<Shape::kM, Shape::kK, kAAlongP>;
  using B = OperandStage<Shape::kN, Shape::kK, kBAlongP>;
  static constexpr int kStages = Shape::kStages;
  static constexpr int kOffsetB = Shape::kM * (Shape::kK + 4);
  static constexpr int kRows = Shape::kLaneRows, kCols = Shape::kLaneCols;
  static constexpr int kWarpM = 4 * kRows, kWarpN = 8 * kCols;

  __device__ void fill(int step, int i, int j) const {
    if (step < steps_) {
      float* const stage = shared_ + step % kStages * Shape::kStage;
      const int p = step * Shape::kK;
      A::load(stage, a_, i, p, k_);
      B::load(stage + kOffsetB, b_, j, p, k_);
    }
    cp_async_commit();
  }

  float* shared_;
  Operand a_, b_;
  int k_, steps_;
};

}  // namespace tilegrad::TILEGRAD_BACKEND::step
