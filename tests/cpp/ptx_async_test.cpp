// SPDX-License-Identifier: MIT
// The CPU bodies of cp.async, TMA, mbarriers and named barriers, against the text of the PTX ISA
// (version 9.x). Prints one line a check; returns 1 if one fails.
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "cuda/ptx/barrier.cuh"
#include "cuda/ptx/cp_async.cuh"
#include "cuda/ptx/mbarrier.cuh"
#include "cuda/ptx/tma.cuh"
#include "ptx_test.hpp"

namespace tilegrad::sim {
namespace {

// ---- TMA: section "Tensors", bounding boxes, out of bounds and swizzling modes ------------------

void tma_kernel(TensorMap load, TensorMap store, uint16_t* out, int x, int y) {
  unsigned char* const tile = shared();
  auto* const barrier = reinterpret_cast<uint64_t*>(tile + 4096);
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    mbarrier_arrive_expect_tx(barrier, 64 * 16 * 2);
    tma_load_2d(tile, load, x, y, barrier);
  }
  __syncthreads();
  mbarrier_wait(barrier, 0);
  for (unsigned i = threadIdx.x; i < 64 * 16; i += blockDim.x) {
    out[i] = reinterpret_cast<const uint16_t*>(tile)[i];
  }
  if (threadIdx.x == 0) {
    tma_store_2d(tile, store, x, y);
    tma_store_commit();
    tma_store_wait<0>();
  }
}

void test_tma(const char* what, int x, int y) {
  constexpr int kRows = 21, kCols = 90, kStride = 96;
  std::vector<uint16_t> memory(kRows * kStride + 64), copy(memory.size(), 7), out(64 * 16);
  auto* const base = reinterpret_cast<uint16_t*>((reinterpret_cast<uintptr_t>(memory.data()) + 15) &
                                                 ~uintptr_t{15});
  auto* const target =
      reinterpret_cast<uint16_t*>((reinterpret_cast<uintptr_t>(copy.data()) + 15) & ~uintptr_t{15});
  for (int i = 0; i < kRows * kStride; ++i) base[i] = static_cast<uint16_t>(i + 1);
  const TensorShape shape{2, {kCols, kRows, 1}, {1, kStride, 0}, {64, 16, 1}};
  run(&tma_kernel, 64, 4096 + 8, make_tensor_map(base, shape), make_tensor_map(target, shape),
      out.data(), x, y);
  bool good = true;
  for (int j = 0; j < 16; ++j) {
    for (int i = 0; i < 64; ++i) {
      const bool inside = x + i >= 0 && x + i < kCols && y + j >= 0 && y + j < kRows;
      const int value = inside ? (y + j) * kStride + x + i + 1 : 0;
      good = good && out[static_cast<size_t>(swizzled(j * 128 + i * 2) / 2)] == value;
    }
  }
  for (int j = 0; j < kRows; ++j) {
    for (int i = 0; i < kStride; ++i) {
      const bool inside = i < kCols && i >= x && i < x + 64 && j >= y && j < y + 16;
      good = good && target[j * kStride + i] == (inside ? base[j * kStride + i] : 7);
    }
  }
  expect(good, what);
}

// A warp fills two boxes in turn, and fills the first again once it has been read.
void tma_boxes_kernel(TensorMap store, int first, int rows) {
  unsigned char* const boxes = shared();
  for (int box = 0; box < 3; ++box) {
    unsigned char* const at = boxes + box % 2 * 2048;
    if (threadIdx.x == 0) tma_store_wait_read<1>();
    __syncwarp();
    for (int i = static_cast<int>(threadIdx.x); i < 64 * 16; i += 32) {
      const auto value = static_cast<uint16_t>(1000 * box + i);
      std::memcpy(at + swizzled(i * 2), &value, 2);
    }
    __syncwarp();
    if (threadIdx.x == 0) {
      tma_store_3d(at, store, first, rows, box);
      tma_store_commit();
    }
  }
  if (threadIdx.x == 0) tma_store_wait<0>();
}

void test_tma_boxes() {
  constexpr int kRows = 19, kCols = 70, kStride = 72, kMatrix = kRows * kStride;
  std::vector<uint16_t> memory(3 * kMatrix + 64, 7);
  auto* const base = reinterpret_cast<uint16_t*>((reinterpret_cast<uintptr_t>(memory.data()) + 15) &
                                                 ~uintptr_t{15});
  run(&tma_boxes_kernel, 32, 4096,
      make_tensor_map(base, {3, {kCols, kRows, 3}, {1, kStride, kMatrix}, {64, 16, 1}}), 8, 5);
  bool good = true;
  for (int z = 0; z < 3; ++z) {
    for (int j = 0; j < kRows; ++j) {
      for (int i = 0; i < kStride; ++i) {
        const bool inside = i >= 8 && i < kCols && j >= 5;
        const int value = inside ? 1000 * z + (j - 5) * 64 + i - 8 : 7;
        good = good && base[z * kMatrix + j * kStride + i] == value;
      }
    }
  }
  expect(good, "TMA stores of boxes of three matrices, each reused after it was read");
}

// ---- cp.async, mbarriers, named barriers --------------------------------------------------------

void cp_async_kernel(const unsigned char* from, unsigned char* out, bool wait) {
  unsigned char* const tile = shared();
  for (int i = 0; i < 48; ++i) tile[i] = 0xee;
  cp_async_16(tile, from);
  cp_async_8_zfill(tile + 16, from + 16, true);
  cp_async_4_zfill(tile + 24, from + 24, false);
  cp_async_partial<16>(tile + 32, from + 32, 6);
  cp_async_commit();
  cp_async_4(tile + 28, from + 28);
  cp_async_commit();
  if (wait) cp_async_wait<1>();
  for (int i = 0; i < 28; ++i) out[i] = tile[i];
  for (int i = 32; i < 48; ++i) out[i] = tile[i];
  if (wait) cp_async_wait<0>();
  for (int i = 28; i < 32; ++i) out[i] = tile[i];
}

void test_cp_async() {
  alignas(16) unsigned char from[48];
  unsigned char out[48], want[48];
  for (int i = 0; i < 48; ++i) {
    from[i] = static_cast<unsigned char>(i + 1);
    want[i] = (i >= 24 && i < 28) || i >= 38 ? 0 : from[i];
  }
  run(&cp_async_kernel, 1, 64, static_cast<const unsigned char*>(from),
      static_cast<unsigned char*>(out), true);
  expect(std::memcmp(out, want, 48) == 0, "cp.async copies and fills with zeros");
  if (simulator::schedule().find("lazy") != std::string::npos) {
    run(&cp_async_kernel, 1, 64, static_cast<const unsigned char*>(from),
        static_cast<unsigned char*>(out), false);
    expect(out[0] == 0xee && out[47] == 0xee, "a lazy cp.async is not seen without its wait");
  }
}

// Section "mbarrier": phases end when all arrivals are in, parity 0 first; a wait on the parity of
// the phase before returns at once.
void mbarrier_kernel(int* out) {
  auto* const barrier = reinterpret_cast<uint64_t*>(shared());
  auto* const value = reinterpret_cast<int*>(shared() + 8);
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 32);
    out[0] = mbarrier_try_wait(barrier, 1);
    out[1] = mbarrier_try_wait(barrier, 0);
  }
  __syncthreads();
  for (int round = 0; round < 3; ++round) {
    if (threadIdx.x >= 32) {
      if (threadIdx.x == 33) *value = 10 * round;
      mbarrier_arrive(barrier);
      named_barrier_sync(1, 64);
    } else {
      mbarrier_wait(barrier, static_cast<uint32_t>(round % 2));
      if (threadIdx.x == 0) out[2 + round] = *value;
      named_barrier_sync(1, 64);
    }
  }
}

void test_mbarrier() {
  std::array<int, 5> out{};
  run(&mbarrier_kernel, 64, 16, out.data());
  expect(out == std::array<int, 5>{1, 0, 0, 10, 20},
         "mbarrier phases and parities, named barriers");
}

// A step along an axis of one element is never taken, but the encoder wants it legal: a multiple of
// 16 bytes, below 2^40 bytes, and not within the axis before.
void test_steps() {
  const auto steps = [](std::array<int64_t, 3> size, std::array<int64_t, 3> step,
                        TensorElement of) {
    const TensorShape made = with_legal_steps({3, size, step, {64, 16, 1}, of});
    return std::array<int64_t, 2>{made.stride[1], made.stride[2]};
  };
  using Steps = std::array<int64_t, 2>;
  constexpr TensorElement half = TensorElement::bits16, full = TensorElement::float32;
  expect(steps({90, 21, 1}, {1, 96, 0}, half) == Steps{96, 21 * 96}, "TMA step over one matrix");
  expect(steps({90, 1, 1}, {1, 0, 0}, half) == Steps{96, 96}, "TMA step over one row");
  expect(steps({90, 1, 1}, {1, 0, 0}, full) == Steps{92, 92}, "TMA step over one row of floats");
  expect(steps({90, 21, 3}, {1, 104, 8}, half) == Steps{104, 8}, "TMA steps that are taken stay");
  const int64_t far = (int64_t{1} << 39) - 8;
  expect(steps({90, int64_t{1} << 30, 1}, {1, far, 0}, half) == Steps{far, far},
         "TMA step over a matrix that is too large");
}

void test_all() {
  test_tma("TMA box inside", 8, 3);
  test_tma("TMA box over the end", 40, 10);
  test_tma("TMA box before the beginning", -5, -2);
  test_tma_boxes();
  test_steps();
  test_cp_async();
  test_mbarrier();
}

}  // namespace
}  // namespace tilegrad::sim

int main() { return tilegrad::sim::run_tests(tilegrad::sim::test_all); }
