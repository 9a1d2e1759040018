// SPDX-License-Identifier: MIT
// Fragment, descriptor and swizzle layouts of the CPU bodies in csrc/cuda/ptx, against tables of
// the PTX ISA (version 9.x) that are written here from its text and not from our kernels. Prints
// one line a check; returns 1 if one fails.
#include <array>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "cuda/ptx/ldmatrix.cuh"
#include "cuda/ptx/mma.cuh"
#include "cuda/ptx/wgmma.cuh"
#include "ptx_test.hpp"

namespace tilegrad::sim {
namespace {

// Small integers, so that every sum is exact.
int number(uint32_t i) {
  i = (i ^ i >> 16) * 0x7feb352du;
  i = (i ^ i >> 15) * 0x846ca68bu;
  return static_cast<int>((i ^ i >> 16) % 17) - 8;
}
uint16_t bfloat_bits(int x) {
  return static_cast<uint16_t>(float_to_bits(static_cast<float>(x)) >> 16);
}
uint16_t half_bits(int x) { return float_to_half(static_cast<float>(x)); }

// Section "ldmatrix", figure of the m8n8 fragment: row r of a matrix goes to lanes 4 r .. 4 r + 3,
// two elements each.

constexpr int kLaneOfElement[8][8] = {
    {0, 0, 1, 1, 2, 2, 3, 3},         {4, 4, 5, 5, 6, 6, 7, 7},
    {8, 8, 9, 9, 10, 10, 11, 11},     {12, 12, 13, 13, 14, 14, 15, 15},
    {16, 16, 17, 17, 18, 18, 19, 19}, {20, 20, 21, 21, 22, 22, 23, 23},
    {24, 24, 25, 25, 26, 26, 27, 27}, {28, 28, 29, 29, 30, 30, 31, 31}};

template <int kCount, bool kTranspose>
void ldmatrix_kernel(uint32_t* out) {
  const unsigned lane = threadIdx.x;
  auto* const rows = reinterpret_cast<uint16_t*>(shared());
  // Rows lie in a scrambled order: the addresses decide, not the place.
  for (unsigned i = lane; i < 256; i += 32) rows[i] = static_cast<uint16_t>(i);
  __syncthreads();
  const uint16_t* const row = rows + (lane * 11 + 3) % 32 * 8;
  uint32_t registers[kCount];
  if constexpr (kCount == 1)
    kTranspose ? ldmatrix_x1_trans(registers, row) : ldmatrix_x1(registers, row);
  if constexpr (kCount == 2)
    kTranspose ? ldmatrix_x2_trans(registers, row) : ldmatrix_x2(registers, row);
  if constexpr (kCount == 4)
    kTranspose ? ldmatrix_x4_trans(registers, row) : ldmatrix_x4(registers, row);
  for (int i = 0; i < kCount; ++i) out[lane * kCount + i] = registers[i];
}

template <int kCount, bool kTranspose>
void test_ldmatrix(const char* what) {
  std::vector<uint32_t> out(32 * kCount);
  run(&ldmatrix_kernel<kCount, kTranspose>, 32, 512, out.data());
  bool good = true;
  for (int matrix = 0; matrix < kCount; ++matrix) {
    for (int r = 0; r < 8; ++r) {
      for (int c = 0; c < 8; ++c) {
        // "threads 0-7 hold the addresses of matrix 0, 8-15 of matrix 1, .."
        const int address_lane = 8 * matrix + (kTranspose ? c : r);
        const int stored = (address_lane * 11 + 3) % 32 * 8 + (kTranspose ? r : c);
        const uint32_t word = out[static_cast<size_t>(kLaneOfElement[r][c] * kCount + matrix)];
        good = good && static_cast<int>(word >> (c % 2 * 16) & 0xffffu) == stored;
      }
    }
  }
  expect(good, what);
}

// ---- mma.sync -----------------------------------------------------------------------------------

struct Place {
  int row, col;
};

// Section "Matrix Fragments for mma.m16n8k16 with floating point type": elements a0..a7, b0..b3.
Place a_k16(int lane, int i) {
  const int group = lane >> 2, in_group = lane % 4;
  return {(0 <= i && i < 2) || (4 <= i && i < 6) ? group : group + 8,
          i < 4 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8};
}
Place b_k16(int lane, int i) {
  const int group = lane >> 2, in_group = lane % 4;
  return {i < 2 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8, group};
}
// Section "Matrix Fragments for mma.m16n8k8", .tf32: elements a0..a3, b0, b1.
Place a_tf32(int lane, int i) {
  const int group = lane >> 2, in_group = lane % 4;
  return {i == 0 || i == 2 ? group : group + 8, i == 0 || i == 1 ? in_group : in_group + 4};
}
Place b_tf32(int lane, int i) {
  const int group = lane >> 2, in_group = lane % 4;
  return {i == 0 ? in_group : in_group + 4, group};
}
// Both: accumulators c0..c3.
Place accumulator(int lane, int i) {
  const int group = lane >> 2, in_group = lane % 4;
  return {i < 2 ? group : group + 8, in_group * 2 + (i & 1)};
}

// Rows of the figures, as they are drawn: who holds row 0 and row 8 of a, column 5 of b.
void test_drawn_rows() {
  struct Drawn {
    Place place;
    int lane, i;
  };
  const Drawn a16[] = {{{0, 0}, 0, 0},  {{0, 1}, 0, 1}, {{0, 7}, 3, 1},    {{0, 8}, 0, 4},
                       {{0, 15}, 3, 5}, {{8, 0}, 0, 2}, {{15, 15}, 31, 7}, {{9, 9}, 4, 7}};
  const Drawn b16[] = {
      {{0, 0}, 0, 0}, {{1, 0}, 0, 1}, {{7, 5}, 23, 1}, {{8, 5}, 20, 2}, {{15, 7}, 31, 3}};
  const Drawn a8[] = {
      {{0, 0}, 0, 0}, {{0, 3}, 3, 0}, {{0, 4}, 0, 2}, {{8, 0}, 0, 1}, {{15, 7}, 31, 3}};
  const Drawn b8[] = {{{0, 0}, 0, 0}, {{3, 0}, 3, 0}, {{4, 0}, 0, 1}, {{7, 7}, 31, 1}};
  const Drawn c[] = {{{0, 0}, 0, 0}, {{0, 7}, 3, 1}, {{8, 0}, 0, 2}, {{15, 7}, 31, 3}};
  bool good = true;
  const auto same = [](Place x, Place y) { return x.row == y.row && x.col == y.col; };
  for (const Drawn& d : a16) good = good && same(a_k16(d.lane, d.i), d.place);
  for (const Drawn& d : b16) good = good && same(b_k16(d.lane, d.i), d.place);
  for (const Drawn& d : a8) good = good && same(a_tf32(d.lane, d.i), d.place);
  for (const Drawn& d : b8) good = good && same(b_tf32(d.lane, d.i), d.place);
  for (const Drawn& d : c) good = good && same(accumulator(d.lane, d.i), d.place);
  expect(good, "the formulas give the drawn rows of the figures");
}

enum class Format { bf16, f16, tf32 };

template <Format kFormat>
void mma_kernel(const uint32_t* a, const uint32_t* b, float* d) {
  const unsigned lane = threadIdx.x;
  uint32_t left[4], right[2];
  float sum[4];
  for (unsigned i = 0; i < 4; ++i) left[i] = a[lane * 4 + i];
  for (unsigned i = 0; i < 2; ++i) right[i] = b[lane * 2 + i];
  for (unsigned i = 0; i < 4; ++i) sum[i] = d[lane * 4 + i];
  if constexpr (kFormat == Format::bf16) mma_m16n8k16_bf16(sum, left, right);
  if constexpr (kFormat == Format::f16) mma_m16n8k16_f16(sum, left, right);
  if constexpr (kFormat == Format::tf32) mma_m16n8k8_tf32(sum, left, right);
  for (unsigned i = 0; i < 4; ++i) d[lane * 4 + i] = sum[i];
}

template <Format kFormat>
void test_mma(const char* what) {
  constexpr bool kPacked = kFormat != Format::tf32;
  constexpr int k = kPacked ? 16 : 8;
  const auto a = [](int row, int col) { return number(static_cast<uint32_t>(row * 100 + col)); };
  const auto b = [](int row, int col) {
    return number(static_cast<uint32_t>(5000 + row * 100 + col));
  };
  const auto c = [](int row, int col) {
    return number(static_cast<uint32_t>(9000 + row * 100 + col));
  };
  const auto encode = [](int x) {
    return kFormat == Format::bf16  ? uint32_t{bfloat_bits(x)}
           : kFormat == Format::f16 ? uint32_t{half_bits(x)}
                                    : float_to_bits(static_cast<float>(x));
  };
  std::vector<uint32_t> left(128), right(64);
  std::vector<float> d(128);
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < (kPacked ? 8 : 4); ++i) {  // "elements low to high": two a register
      const Place at = kPacked ? a_k16(lane, i) : a_tf32(lane, i);
      left[static_cast<size_t>(lane * 4 + (kPacked ? i / 2 : i))] |= encode(a(at.row, at.col))
                                                                     << (kPacked ? i % 2 * 16 : 0);
    }
    for (int i = 0; i < (kPacked ? 4 : 2); ++i) {
      const Place at = kPacked ? b_k16(lane, i) : b_tf32(lane, i);
      right[static_cast<size_t>(lane * 2 + (kPacked ? i / 2 : i))] |= encode(b(at.row, at.col))
                                                                      << (kPacked ? i % 2 * 16 : 0);
    }
    for (int i = 0; i < 4; ++i) {
      const Place at = accumulator(lane, i);
      d[static_cast<size_t>(lane * 4 + i)] = static_cast<float>(c(at.row, at.col));
    }
  }
  run(&mma_kernel<kFormat>, 32, 0, left.data(), right.data(), d.data());
  bool good = true;
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Place at = accumulator(lane, i);
      int sum = c(at.row, at.col);
      for (int p = 0; p < k; ++p) sum += a(at.row, p) * b(p, at.col);
      good = good && d[static_cast<size_t>(lane * 4 + i)] == static_cast<float>(sum);
    }
  }
  expect(good, what);
}

// Section "cvt": .rna rounds to nearest, ties away from zero; tf32 keeps 10 bits of significand.
void test_tf32() {
  const std::array<std::array<uint32_t, 2>, 9> table = {{{0x3f800000u, 0x3f800000u},
                                                         {0x3f800fffu, 0x3f800000u},
                                                         {0x3f801000u, 0x3f802000u},
                                                         {0xbf801000u, 0xbf802000u},
                                                         {0x3f803000u, 0x3f804000u},
                                                         {0x3ffff000u, 0x40000000u},
                                                         {0x7f800000u, 0x7f800000u},
                                                         {0xff800000u, 0xff800000u},
                                                         {0x80000000u, 0x80000000u}}};
  bool good = std::isnan(bits_to_float(float_to_tf32(0x7fc00001u)));
  for (const auto& [from, to] : table) good = good && float_to_tf32(from) == to;
  expect(good, "cvt.rna.tf32 rounds ties away from zero");
}

// ---- wgmma --------------------------------------------------------------------------------------

// Section "Register Fragments", figure of accumulator D of wgmma.m64nNk16.
Place wgmma_accumulator(int thread, int i) {
  const int warp = thread / 32, lane = thread % 32;
  return {16 * warp + lane / 4 + ((i / 2) % 2) * 8, (i / 4) * 8 + (lane % 4) * 2 + i % 2};
}

// Section "Canonical Layouts", 128B swizzling, in elements of 16 bits (T = 8):
//   K-major  Swizzle<3,4,3> o ((8, m), (T, 2k)) : ((8T, SBO), (1, T))
//   MN-major Swizzle<3,4,3> o ((T, 8, m), (8, k)) : ((1, T, LBO), (8T, SBO))
int k_major(int i, int p, int stride) {
  return i % 8 * 64 + i / 8 * stride + p % 8 * 1 + p / 8 * 8;
}
int mn_major(int i, int p, int leading, int stride) {
  return i % 8 + i / 8 % 8 * 8 + i / 64 * leading + p % 8 * 64 + p / 8 * stride;
}

enum WgmmaFault { kNone, kNoWait, kWritten, kWrittenLate, kNoFence };

struct WgmmaSetup {
  const uint16_t* memory;  // what shared memory holds, 48 KB
  uint64_t a, b;           // descriptors
  float* d;                // (128, kN / 2)
  int fault;               // below
};

template <int kN, class T, Major kMajorA, Major kMajorB>
void wgmma_kernel(WgmmaSetup setup) {
  const unsigned tid = threadIdx.x;
  auto* const words = reinterpret_cast<uint16_t*>(shared());
  for (unsigned i = tid; i < 24 * 1024; i += 128) words[i] = setup.memory[i];
  __syncthreads();
  float d[kN / 2];
  for (int i = 0; i < kN / 2; ++i) d[i] = static_cast<float>(i % 5);
  if (setup.fault != kNoFence || tid != 5) wgmma_fence();
  wgmma_m64k16<kN, T, kMajorA, kMajorB>(d, setup.a, setup.b);
  if (setup.fault == kWritten && tid == 77) d[0] = 0;
  wgmma_m64k16<kN, T, kMajorA, kMajorB>(d, setup.a, setup.b);
  wgmma_commit();
  if (setup.fault == kWrittenLate && tid == 77) d[kN / 2 - 1] = 0;
  if (setup.fault != kNoWait) wgmma_wait<0>();
  for (int i = 0; i < kN / 2; ++i) setup.d[tid * (kN / 2) + static_cast<unsigned>(i)] = d[i];
}

template <int kN, class T, Major kMajorA, Major kMajorB>
bool wgmma_matches(WgmmaFault fault = kNone) {
  const auto a = [](int i, int p) { return number(static_cast<uint32_t>(i * 100 + p)); };
  const auto b = [](int p, int j) { return number(static_cast<uint32_t>(70000 + p * 1000 + j)); };
  const auto encode = std::is_same_v<T, bfloat16> ? &bfloat_bits : &half_bits;
  // The second 16 of p of a tile that holds 64 of them; a at byte 0, b at byte 8192.
  constexpr int kStride = 1024, kLeading = 8192, kStep = 16;
  std::vector<uint16_t> memory(24 * 1024, 0x7fc0);
  const auto put = [&](int start, int element, int value) {
    memory[static_cast<size_t>(swizzled(start + element * 2) / 2)] = encode(value);
  };
  for (int p = 0; p < 16; ++p) {
    for (int i = 0; i < 64; ++i) {
      put(0,
          kMajorA == Major::k ? k_major(i, kStep + p, kStride / 2)
                              : mn_major(i, kStep + p, kLeading / 2, kStride / 2),
          a(i, p));
    }
    for (int j = 0; j < kN; ++j) {
      put(8192,
          kMajorB == Major::k ? k_major(j, kStep + p, kStride / 2)
                              : mn_major(j, kStep + p, kLeading / 2, kStride / 2),
          b(p, j));
    }
  }
  // Section "Matrix Descriptor Format": start, leading and stride byte offsets >> 4 from bits 0, 16
  // and 32; bits 62-63: 1 = 128-byte swizzle.
  const auto descriptor = [](int start, Major major) {
    const uint64_t at = static_cast<uint64_t>(start + (major == Major::k ? 32 : 2048)) >> 4;
    const uint64_t leading = major == Major::k ? 1 : 8192 >> 4;
    return at | leading << 16 | uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
  };
  std::vector<float> d(128 * kN / 2);
  run(&wgmma_kernel<kN, T, kMajorA, kMajorB>, 128, 48 * 1024,
      WgmmaSetup{memory.data(), descriptor(0, kMajorA), descriptor(8192, kMajorB), d.data(),
                 fault});
  bool good = true;
  for (int thread = 0; thread < 128; ++thread) {
    for (int i = 0; i < kN / 2; ++i) {
      const Place at = wgmma_accumulator(thread, i);
      int sum = 0;
      for (int p = 0; p < 16; ++p) sum += a(at.row, p) * b(p, at.col);
      const float value = d[static_cast<size_t>(thread * (kN / 2) + i)];
      good = good &&
             (fault == kNoWait ? std::isnan(value) : value == static_cast<float>(i % 5 + 2 * sum));
    }
  }
  return good;
}

void descriptor_kernel(uint64_t* out) { *out = wgmma_descriptor(shared() + 3072, 8192, 1024); }

void test_wgmma() {
  constexpr Major k = Major::k, mn = Major::mn;
  expect(wgmma_matches<64, bfloat16, k, k>(), "wgmma m64n64k16 bf16, a k-major, b k-major");
  expect(wgmma_matches<128, bfloat16, k, mn>(), "wgmma m64n128k16 bf16, a k-major, b n-major");
  expect(wgmma_matches<256, bfloat16, mn, k>(), "wgmma m64n256k16 bf16, a m-major, b k-major");
  expect(wgmma_matches<256, float16, mn, mn>(), "wgmma m64n256k16 f16, a m-major, b n-major");
  expect(wgmma_matches<64, float16, k, k>(), "wgmma m64n64k16 f16, a k-major, b k-major");
  expect(wgmma_matches<64, bfloat16, k, k>(kNoWait), "wgmma accumulators are NaN without the wait");
  const auto run_with = [](WgmmaFault fault) {
    return [fault] { wgmma_matches<64, bfloat16, k, k>(fault); };
  };
  expect_fault(run_with(kWritten),
               "accumulators were written before the wait for their group, by thread 77",
               "wgmma accumulators written between two products are reported");
  expect_fault(run_with(kWrittenLate),
               "accumulators were written before the wait for their group, by thread 77",
               "wgmma accumulators written before the wait are reported");
  expect_fault(run_with(kNoFence), "need a wgmma_fence since the last wait, by thread 5",
               "a wgmma without the fence is reported");
  uint64_t built = 0;
  run(&descriptor_kernel, 1, 4096, &built);
  expect(built == 0x40000040020000c0u, "wgmma_descriptor places its fields");
}

void test_all() {
  test_ldmatrix<1, false>("ldmatrix x1");
  test_ldmatrix<2, false>("ldmatrix x2");
  test_ldmatrix<4, false>("ldmatrix x4");
  test_ldmatrix<1, true>("ldmatrix x1 trans");
  test_ldmatrix<2, true>("ldmatrix x2 trans");
  test_ldmatrix<4, true>("ldmatrix x4 trans");
  test_drawn_rows();
  test_mma<Format::bf16>("mma m16n8k16 bf16");
  test_mma<Format::f16>("mma m16n8k16 f16");
  test_mma<Format::tf32>("mma m16n8k8 tf32");
  test_tf32();
  test_wgmma();
}

}  // namespace
}  // namespace tilegrad::sim

int main() { return tilegrad::sim::run_tests(tilegrad::sim::test_all); }
