// SPDX-License-Identifier: MIT
// tf32 in the copy engine and in wgmma, against the PTX ISA: layouts of 4-byte elements, which bits
// count, and how the engine rounds.
#include <algorithm>
#include <bit>
#include <vector>

#include "cuda/ptx/mbarrier.cuh"
#include "cuda/ptx/tma.cuh"
#include "cuda/ptx/wgmma.cuh"
#include "ptx_test.hpp"

namespace tilegrad::sim {
namespace {

// ---- TMA ----------------------------------------------------------------------------------------

void load_kernel(TensorMap map, uint32_t* out, int x, int y) {
  unsigned char* const tile = shared();
  auto* const barrier = reinterpret_cast<uint64_t*>(tile + 2048);
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    mbarrier_arrive_expect_tx(barrier, 32 * 16 * 4);
    tma_load_2d(tile, map, x, y, barrier);
  }
  __syncthreads();
  mbarrier_wait(barrier, 0);
  for (unsigned i = threadIdx.x; i < 32 * 16; i += blockDim.x) {
    out[i] = reinterpret_cast<const uint32_t*>(tile)[i];
  }
}

// A box (16, 32) of an array (21, 45) whose rows are 48 apart: row r of it is 128 bytes.
std::vector<uint32_t> loaded(const std::vector<uint32_t>& array, int x, int y) {
  alignas(16) static uint32_t memory[21 * 48];
  std::copy(array.begin(), array.end(), memory);
  std::vector<uint32_t> out(32 * 16);
  const TensorShape shape{2, {45, 21, 1}, {1, 48, 0}, {32, 16, 1}, TensorElement::tf32};
  run(&load_kernel, 64, 2048 + 8, make_tensor_map(memory, shape), out.data(), x, y);
  return out;
}

void test_box(const char* what, int x, int y) {
  std::vector<uint32_t> array(21 * 48);
  for (size_t i = 0; i < array.size(); ++i) {
    array[i] = std::bit_cast<uint32_t>(static_cast<float>(i + 1));  // 10 bits: not rounded
  }
  const std::vector<uint32_t> out = loaded(array, x, y);
  bool good = true;
  for (int j = 0; j < 16; ++j) {
    for (int i = 0; i < 32; ++i) {
      const bool inside = x + i >= 0 && x + i < 45 && y + j >= 0 && y + j < 21;
      const auto value = static_cast<float>(inside ? (y + j) * 48 + x + i + 1 : 0);
      good = good && out[static_cast<size_t>(swizzled(j * 128 + i * 4) / 4)] ==
                         std::bit_cast<uint32_t>(value);
    }
  }
  expect(good, what);
}

void test_rounding() {
  const uint32_t table[][2] = {
      {0x3f800000, 0x3f800000}, {0x3f800fff, 0x3f800000}, {0x3f801000, 0x3f800000},
      {0x3f801001, 0x3f802000}, {0x3f803000, 0x3f804000}, {0xbf805000, 0xbf804000},
      {0x3fffffff, 0x40000000}, {0x7f800000, 0x7f800000}, {0xff800000, 0xff800000},
      {0x7fc00001, 0x7fc00001}, {0x80000000, 0x80000000},
  };
  std::vector<uint32_t> array(21 * 48);
  size_t count = 0;
  for (const auto& row : table) array[count++] = row[0];
  const std::vector<uint32_t> out = loaded(array, 0, 0);
  bool good = true;
  for (size_t i = 0; i < count; ++i) good = good && out[i] == table[i][1];  // row 0: no swizzle
  expect(good, "TMA rounds tf32 to nearest, ties to even; infinities and NaN stay");
}

// ---- wgmma --------------------------------------------------------------------------------------

// Small and without pattern: sums of their products are exact.
int number(uint32_t i) { return static_cast<int>((i * 2654435761u >> 16) % 9) - 4; }

struct Setup {
  const uint32_t* memory;  // what shared memory holds, 40 KB
  uint64_t a, b;           // descriptors
  float* d;                // (128, kN / 2)
};

template <int kN>
void wgmma_kernel(Setup setup) {
  const unsigned tid = threadIdx.x;
  auto* const words = reinterpret_cast<uint32_t*>(shared());
  for (unsigned i = tid; i < 10 * 1024; i += 128) words[i] = setup.memory[i];
  __syncthreads();
  float d[kN / 2];
  for (int i = 0; i < kN / 2; ++i) d[i] = static_cast<float>(i % 5);
  wgmma_fence();
  wgmma_m64k8_tf32<kN>(d, setup.a, setup.b);
  wgmma_commit();
  wgmma_wait<0>();
  for (int i = 0; i < kN / 2; ++i) setup.d[tid * (kN / 2) + static_cast<unsigned>(i)] = d[i];
}

// Section "Canonical Layouts", 128B swizzling, K-major, in elements of 32 bits (T = 4):
// Swizzle<3,4,3> o ((8, m), (T, 2k)) : ((8T, SBO), (1, T)), here in bytes.
int k_major(int i, int p) { return i % 8 * 128 + i / 8 * 1024 + p % 4 * 4 + p / 4 * 16; }

template <int kN>
void test_wgmma(const char* what) {
  const auto a = [](int i, int p) { return number(static_cast<uint32_t>(i * 100 + p)); };
  const auto b = [](int p, int j) { return number(static_cast<uint32_t>(70000 + p * 1000 + j)); };
  // The third 8 of p of tiles that hold 32 of them; a at byte 0, b at byte 8192.
  constexpr int kStep = 16;
  std::vector<uint32_t> memory(10 * 1024, 0x7fc00000u);
  const auto put = [&](int start, int offset, int value) {
    // Bits that the instruction must not read.
    memory[static_cast<size_t>(swizzled(start + offset) / 4)] =
        std::bit_cast<uint32_t>(static_cast<float>(value)) | 0x1fffu;
  };
  for (int p = 0; p < 8; ++p) {
    for (int i = 0; i < 64; ++i) put(0, k_major(i, kStep + p), a(i, p));
    for (int j = 0; j < kN; ++j) put(8192, k_major(j, kStep + p), b(p, j));
  }
  const auto descriptor = [](int start) {
    return static_cast<uint64_t>(start + kStep * 4) >> 4 | uint64_t{1} << 16 |
           uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
  };
  std::vector<float> d(128 * kN / 2);
  run(&wgmma_kernel<kN>, 128, 40 * 1024,
      Setup{memory.data(), descriptor(0), descriptor(8192), d.data()});
  bool good = true;
  for (int thread = 0; thread < 128; ++thread) {
    for (int i = 0; i < kN / 2; ++i) {
      // Section "Register Fragments", accumulator D of wgmma.m64nNk8.
      const int row = thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8;
      const int col = i / 4 * 8 + thread % 4 * 2 + i % 2;
      int sum = i % 5;
      for (int p = 0; p < 8; ++p) sum += a(row, p) * b(p, col);
      good = good && d[static_cast<size_t>(thread * (kN / 2) + i)] == static_cast<float>(sum);
    }
  }
  expect(good, what);
}

void test_all() {
  test_box("TMA box of tf32 inside", 8, 3);
  test_box("TMA box of tf32 over the end", 20, 10);
  test_box("TMA box of tf32 before the beginning", -5, -2);
  test_rounding();
  test_wgmma<64>("wgmma m64n64k8 tf32");
  test_wgmma<128>("wgmma m64n128k8 tf32");
  test_wgmma<256>("wgmma m64n256k8 tf32");
}

}  // namespace
}  // namespace tilegrad::sim

int main() { return tilegrad::sim::run_tests(tilegrad::sim::test_all); }
