// SPDX-License-Identifier: MIT
// Layouts of wgmma with operand a in registers, and of its narrow product of sums, against tables
// of the PTX ISA (version 9.x) that are written here from its text and not from our kernels; the
// rounding of pairs. Prints one line a check; returns 1 if one fails.
#include <cmath>
#include <cstdint>
#include <vector>

#include "cuda/ptx/pack.cuh"
#include "cuda/ptx/wgmma_registers.cuh"
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

struct Place {
  int row, col;
};

// Section "Register Fragments for wgmma.mma_async.m64nNk16", figure of matrix A: elements a0..a7 of
// a thread, two a register, low half first.
Place operand_a(int thread, int i) {
  const int warp = thread / 32, lane = thread % 32;
  const int group = lane >> 2, in_group = lane % 4;
  const bool upper = (0 <= i && i < 2) || (4 <= i && i < 6);
  return {16 * warp + (upper ? group : group + 8),
          i < 4 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8};
}
// The same section, figure of accumulator D.
Place accumulator(int thread, int i) {
  const int warp = thread / 32, lane = thread % 32;
  return {16 * warp + lane / 4 + ((i / 2) % 2) * 8, (i / 4) * 8 + (lane % 4) * 2 + i % 2};
}
// Section "Canonical Layouts", 128B swizzling, in elements of 16 bits.
int k_major(int i, int p) { return i % 8 * 64 + i / 8 * 512 + p; }
int mn_major(int i, int p) { return i % 64 + i / 64 * 4096 + p * 64; }

struct Setup {
  const uint16_t* memory;  // what shared memory holds, 32 KB
  const uint32_t* a;       // (128, 8): the second 16 of p is the operand
  uint64_t left, right;    // descriptors; left of the product of sums
  float* d;                // (128, kN / 2)
};

constexpr int kElements = 16 * 1024;

template <int kN, class T, Major kMajorB>
void registers_kernel(Setup setup) {
  const unsigned tid = threadIdx.x;
  auto* const words = reinterpret_cast<uint16_t*>(shared());
  for (unsigned i = tid; i < kElements; i += 128) words[i] = setup.memory[i];
  __syncthreads();
  uint32_t a[8];
  for (unsigned i = 0; i < 8; ++i) a[i] = setup.a[tid * 8 + i];
  float d[kN / 2];
  for (int i = 0; i < kN / 2; ++i) d[i] = static_cast<float>(i % 5);
  wgmma_fence();
  wgmma_m64k16_registers<kN, T, kMajorB, 1>(d, a, setup.right);
  wgmma_commit();
  wgmma_wait<0>();
  for (unsigned& pair : a) pair = 0;  // nothing reads it any more
  for (int i = 0; i < kN / 2; ++i) setup.d[tid * (kN / 2) + static_cast<unsigned>(i)] = d[i];
}

// The ways to break the rule that registers stay as they are until the wait.
enum class Broken { none, written, returned, no_fence, sums_returned };

struct Issue {
  uint64_t right;
  float* sink;  // (128)
};

template <class Body>
[[gnu::noinline]] void in_a_function(const Body& body) {
  body();
  asm volatile("" ::: "memory");  // no tail call: the frame is there while the body runs
}

template <Broken kBroken>
void broken_kernel(Issue issue) {
  const unsigned tid = threadIdx.x;
  for (unsigned i = tid; i < kElements; i += 128) reinterpret_cast<uint16_t*>(shared())[i] = 0;
  __syncthreads();
  uint32_t a[2][4] = {{tid, 1, 2, 3}, {4, 5, 6, tid}};
  float d[2][8] = {};
  wgmma_fence();
  if constexpr (kBroken == Broken::returned) {
    in_a_function([&] {
      const uint32_t own[4] = {tid, 1, 2, 3};
      wgmma_m64k16_registers<16, bfloat16, Major::k, 0>(d[0], own, issue.right);
    });
  } else if constexpr (kBroken == Broken::sums_returned) {
    in_a_function([&] {
      float own[8] = {};
      wgmma_m64k16_registers<16, bfloat16, Major::k, 0>(own, a[0], issue.right);
    });
  } else {
    wgmma_m64k16_registers<16, bfloat16, Major::k, 0>(d[0], a[0], issue.right);
  }
  wgmma_commit();
  // The product of a newer group goes on: its operand may be written only after its own wait.
  wgmma_m64k16_registers<16, bfloat16, Major::k, 0>(d[1], a[1], issue.right);
  wgmma_commit();
  if (kBroken == Broken::written && tid == 101) a[0][3] = 4;
  wgmma_wait<1>();
  a[0][0] = 0;
  if constexpr (kBroken == Broken::no_fence) {
    wgmma_m64k16_registers<16, bfloat16, Major::k, 0>(d[1], a[0], issue.right);
  }
  wgmma_wait<0>();
  issue.sink[tid] = d[0][0] + d[1][7] + static_cast<float>(a[0][0] + a[1][1]);
}

template <Broken kBroken>
void run_broken() {
  float sink[128];
  run(&broken_kernel<kBroken>, 128, 2 * kElements, Issue{uint64_t{1} << 62 | 64ull << 32, sink});
}

void test_broken() {
  run_broken<Broken::none>();
  expect(true, "wgmma: registers are free after the wait for their group");
  expect_fault(run_broken<Broken::written>,
               "registers were written before the wait for their group; the product was issued",
               "wgmma: operand a written before the wait is reported");
  expect_fault(run_broken<Broken::returned>,
               "registers were given up before the wait for their group; the product was issued",
               "wgmma: operand a of a function that has returned is reported");
  expect_fault(run_broken<Broken::sums_returned>,
               "accumulators were given up before the wait for their group",
               "wgmma: accumulators of a function that has returned are reported");
  expect_fault(run_broken<Broken::no_fence>, "need a wgmma_fence since the last wait",
               "wgmma: operand a without a fence after the last wait is reported");
}

template <class T>
void sums_kernel(Setup setup) {
  const unsigned tid = threadIdx.x;
  auto* const words = reinterpret_cast<uint16_t*>(shared());
  for (unsigned i = tid; i < kElements; i += 128) words[i] = setup.memory[i];
  __syncthreads();
  float d[4] = {0, 1, 2, 3};
  wgmma_fence();
  wgmma_m64n8k16_sums<T>(d, setup.left, setup.right);
  wgmma_commit();
  wgmma_wait<0>();
  for (unsigned i = 0; i < 4; ++i) setup.d[tid * 4 + i] = d[i];
}

int a_at(int i, int p) { return number(static_cast<uint32_t>(i * 100 + p)); }
int b_at(int p, int j) { return number(static_cast<uint32_t>(70000 + p * 1000 + j)); }

// Section "Matrix Descriptor Format": offsets >> 4; bits 62-63: 1 = 128-byte swizzle.
uint64_t descriptor(int start) {
  return static_cast<uint64_t>(start) >> 4 | uint64_t{8192 >> 4} << 16 | uint64_t{1024 >> 4} << 32 |
         uint64_t{1} << 62;
}

template <int kN>
bool is_product(const std::vector<float>& d) {
  bool good = true;
  for (int thread = 0; thread < 128; ++thread) {
    for (int i = 0; i < kN / 2; ++i) {
      const Place at = accumulator(thread, i);
      int sum = i % 5;
      for (int p = 0; p < 16; ++p) sum += a_at(at.row, p) * b_at(p, at.col);
      good = good && d[static_cast<size_t>(thread * (kN / 2) + i)] == static_cast<float>(sum);
    }
  }
  return good;
}

template <int kN, class T, Major kMajorB>
void test_registers(const char* what) {
  const auto encode = std::is_same_v<T, bfloat16> ? &bfloat_bits : &half_bits;
  std::vector<uint16_t> memory(kElements, 0x7fc0);
  for (int p = 0; p < 16; ++p) {
    for (int j = 0; j < kN; ++j) {
      const int element = kMajorB == Major::k ? k_major(j, 16 + p) : mn_major(j, 16 + p);
      memory[static_cast<size_t>(swizzled(element * 2) / 2)] = encode(b_at(p, j));
    }
  }
  std::vector<uint32_t> a(128 * 8, 0x7fc07fc0u);
  for (int thread = 0; thread < 128; ++thread) {
    for (int i = 0; i < 8; ++i) {
      uint32_t& pair = a[static_cast<size_t>(thread * 8 + 4 + i / 2)];
      if (i % 2 == 0) pair = 0;
      const Place at = operand_a(thread, i);
      pair |= uint32_t{encode(a_at(at.row, at.col))} << i % 2 * 16;
    }
  }
  std::vector<float> d(128 * kN / 2);
  run(&registers_kernel<kN, T, kMajorB>, 128, 2 * kElements,
      Setup{memory.data(), a.data(), 0, descriptor(kMajorB == Major::k ? 32 : 2048), d.data()});
  expect(is_product<kN>(d), what);
}

template <class T>
void test_sums(const char* what) {
  const auto encode = std::is_same_v<T, bfloat16> ? &bfloat_bits : &half_bits;
  std::vector<uint16_t> memory(kElements, 0x7fc0);
  for (int p = 0; p < 16; ++p) {
    for (int i = 0; i < 64; ++i) {
      memory[static_cast<size_t>(swizzled(mn_major(i, p) * 2) / 2)] = encode(a_at(i, p));
    }
    for (int j = 0; j < 8; ++j) {
      memory[static_cast<size_t>(swizzled(16384 + k_major(j, p) * 2) / 2)] = encode(b_at(p, j));
    }
  }
  std::vector<float> d(128 * 4);
  run(&sums_kernel<T>, 128, 2 * kElements,
      Setup{memory.data(), nullptr, descriptor(0), descriptor(16384), d.data()});
  expect(is_product<8>(d), what);
}

// Section "cvt": the second operand goes to the low half; .relu clips below 0; NaN is 0x7fff.
void test_pack() {
  expect(floats_to_bfloats(1, -2) == 0xc0003f80u, "cvt.rn.bf16x2: the first float is the low half");
  expect(floats_to_halves(1, -2) == 0xc0003c00u, "cvt.rn.f16x2: the first float is the low half");
  expect(floats_to_bfloats_relu(-1, 2) == 0x40000000u, "cvt.rn.relu.bf16x2 clips below 0");
  expect(floats_to_halves_relu(-1, 2) == 0x40000000u, "cvt.rn.relu.f16x2 clips below 0");
  const float tie = 1 + 0x1p-8f, above = 1 + 0x1.8p-7f;
  expect(floats_to_bfloats(tie, above) == 0x3f823f80u, "cvt.rn.bf16x2: ties go to even");
  expect(floats_to_bfloats(NAN, -INFINITY) == 0xff807fffu, "cvt.rn.bf16x2 of NaN and infinity");
  expect(floats_to_bfloats_relu(NAN, -NAN) == 0x7fff7fffu, "cvt.rn.relu.bf16x2 keeps NaN");
  expect(floats_to_halves_relu(NAN, -NAN) == 0x7fff7fffu, "cvt.rn.relu.f16x2 keeps NaN");
}

void test_all() {
  test_registers<16, bfloat16, Major::k>("wgmma m64n16k16 bf16, a in registers, b k-major");
  test_registers<32, float16, Major::k>("wgmma m64n32k16 f16, a in registers, b k-major");
  test_registers<64, bfloat16, Major::k>("wgmma m64n64k16 bf16, a in registers, b k-major");
  test_registers<64, bfloat16, Major::mn>("wgmma m64n64k16 bf16, a in registers, b n-major");
  test_registers<64, float16, Major::mn>("wgmma m64n64k16 f16, a in registers, b n-major");
  test_registers<128, bfloat16, Major::k>("wgmma m64n128k16 bf16, a in registers, b k-major");
  test_registers<128, float16, Major::mn>("wgmma m64n128k16 f16, a in registers, b n-major");
  test_sums<bfloat16>("wgmma m64n8k16 bf16, a m-major, b k-major");
  test_sums<float16>("wgmma m64n8k16 f16, a m-major, b k-major");
  test_broken();
  test_pack();
}

}  // namespace
}  // namespace tilegrad::sim

int main() { return tilegrad::sim::run_tests(tilegrad::sim::test_all); }
