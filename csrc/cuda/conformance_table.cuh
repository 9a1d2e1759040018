// SPDX-License-Identifier: MIT
// The table of the conformance program: each case by name, what it runs on, and what it leaves.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "conformance_cases.cuh"
#include "conformance_registers.cuh"
#include "conformance_resident.cuh"
#include "conformance_tf32.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

using Words = std::vector<uint32_t>;

struct Case {
  std::string name;
  int lowest, highest;  // compute capability
  bool rounding;        // floats that may differ in their last bits
  std::function<Words()> run;
};

// Device memory that starts as hash(seed), hash(seed + 1), ..
class Buffer {
 public:
  explicit Buffer(size_t words, uint32_t seed = 0) : words_(words) {
    Words start(words);
    for (size_t i = 0; i < words; ++i) start[i] = hash(seed + static_cast<uint32_t>(i));
    CUDA_CHECK(cudaMalloc(&data_, words * 4));
    CUDA_CHECK(cudaMemcpy(data_, start.data(), words * 4, cudaMemcpyHostToDevice));
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { cudaFree(data_); }

  uint32_t* data() const { return data_; }
  Words read() const {
    Words result(words_);
    CUDA_CHECK(cudaMemcpy(result.data(), data_, words_ * 4, cudaMemcpyDeviceToHost));
    return result;
  }

 private:
  size_t words_;
  uint32_t* data_ = nullptr;
};

template <class Kernel, class... Arguments>
inline Words run(Kernel kernel, size_t words, unsigned threads, size_t bytes,
                 Arguments... arguments) {
  const Buffer out(words);
  launch(kernel, dim3(1), dim3(threads), bytes, nullptr, out.data(), arguments...);
  return out.read();
}

inline Words run_cp_async() {
  const Buffer from(32 * 12, 50);
  return run(&cp_async_kernel, 32 * 12, 32, 32 * 48, static_cast<const uint32_t*>(from.data()));
}

inline Words run_tma(int x, int y) {
  const Buffer from(3 * 21 * 48, 70), target(21 * 48, 80);
  const std::array<int64_t, 3> stride{1, 96, 21 * 96};
  Words result = run(&tma_kernel, 1024, 128, 4096 + 8,
                     make_tensor_map(from.data(), {2, {90, 21, 1}, stride, {64, 16, 1}}),
                     make_tensor_map(from.data(), {3, {90, 21, 3}, stride, {64, 16, 1}}),
                     make_tensor_map(target.data(), {2, {90, 21, 1}, stride, {64, 16, 1}}), x, y);
  const Words stored = target.read();
  result.insert(result.end(), stored.begin(), stored.end());
  return result;
}

inline LaunchShape shape(unsigned blocks, unsigned threads, size_t bytes) {
  LaunchShape made;
  made.grid = dim3(blocks);
  made.block = dim3(threads);
  made.dynamic_bytes = bytes;
  return made;
}

inline Words run_cluster() {
  const Buffer out(4 * 192);
  LaunchShape two = shape(4, 64, 8 + 3 * 256);
  two.cluster = 2;
  launch(&cluster_kernel, two, nullptr, out.data());
  return out.read();
}

inline Words run_multicast() {
  const Buffer from(3 * 21 * 48, 70), out(2048 + 1024);
  LaunchShape two = shape(2, 64, 4 * 2048 + 8);
  two.cluster = 2;
  launch(&multicast_kernel, two, nullptr, out.data(),
         make_tensor_map(from.data(), {3, {90, 21, 3}, {1, 96, 21 * 96}, {64, 16, 1}}));
  return out.read();
}

inline Words run_grid_barrier() {
  const Buffer out(257), words(256), counter(1);
  CUDA_CHECK(cudaMemset(counter.data(), 0, 4));
  LaunchShape together = shape(4, 64, 0);
  together.cooperative = true;
  for (int i = 0; i < 2; ++i) {
    launch(&grid_barrier_kernel, together, nullptr, out.data(),
           reinterpret_cast<GridBarrier*>(counter.data()), words.data());
  }
  return out.read();
}

inline Words run_dependency() {
  const Buffer out(512, 90);
  LaunchShape row = shape(4, 64, 0);
  row.overlaps = true;
  for (uint32_t round = 0; round < 8; ++round) {
    launch(&dependency_kernel, row, nullptr, out.data(), round);
  }
  return out.read();
}

// Floats of every exponent, infinities, NaN and ties.
inline Words run_tma_tf32() {
  Buffer from(16 * 32, 60);
  Words floats = from.read();
  for (size_t i = 0; i < floats.size(); i += 4) floats[i] = (floats[i] & 0xffffe000u) | 0x1000u;
  const uint32_t edges[] = {0x7f800000u, 0xff800000u, 0x7f7fffffu, 0x7f7fefffu, 1u, 0x80001001u};
  std::copy(std::begin(edges), std::end(edges), floats.begin() + 1);
  CUDA_CHECK(cudaMemcpy(from.data(), floats.data(), floats.size() * 4, cudaMemcpyHostToDevice));
  return run(
      &tma_tf32_kernel, 512, 128, 2048 + 8,
      make_tensor_map(from.data(), {2, {32, 16, 1}, {1, 32, 0}, {32, 16, 1}, TensorElement::tf32}));
}

template <int kN>
inline void add_wgmma_tf32(std::vector<Case>& cases, const std::string& name) {
  cases.push_back(
      {name, 90, 90, false, [] { return run(&wgmma_tf32_kernel<kN, false>, 128, 128, 40960); }});
  if (kN == 64) {
    cases.push_back({name + "_rounding", 90, 90, true,
                     [] { return run(&wgmma_tf32_kernel<64, true>, 4096, 128, 40960); }});
  }
}

template <class T>
inline void add_mma(std::vector<Case>& cases, const std::string& name) {
  cases.push_back({name, 80, 999, false, [] { return run(&mma_kernel<T, false>, 128, 32, 0); }});
  cases.push_back(
      {name + "_rounding", 80, 999, true, [] { return run(&mma_kernel<T, true>, 128, 32, 0); }});
}

template <int kN, class T, Major kMajorB>
inline void add_wgmma_registers(std::vector<Case>& cases, const std::string& name) {
  cases.push_back({name, 90, 90, false,
                   [] { return run(&wgmma_registers_kernel<kN, T, kMajorB>, 128, 128, 16384); }});
}

template <int kN, class T, Major kMajorA, Major kMajorB>
inline void add_wgmma(std::vector<Case>& cases, const std::string& name) {
  const std::string full =
      name + (kMajorA == Major::k ? "_k" : "_mn") + (kMajorB == Major::k ? "_k" : "_mn");
  cases.push_back({full, 90, 90, false, [] {
                     return run(&wgmma_kernel<kN, T, kMajorA, kMajorB, false>, 128, 128, 49152);
                   }});
  if (kN == 64 && kMajorA == Major::k && kMajorB == Major::k) {
    cases.push_back({full + "_rounding", 90, 90, true, [] {
                       return run(&wgmma_kernel<64, T, kMajorA, kMajorB, true>, 4096, 128, 49152);
                     }});
  }
}

template <int kN, class T>
inline void add_wgmma(std::vector<Case>& cases, const std::string& name) {
  add_wgmma<kN, T, Major::k, Major::k>(cases, name);
  add_wgmma<kN, T, Major::k, Major::mn>(cases, name);
  add_wgmma<kN, T, Major::mn, Major::k>(cases, name);
  add_wgmma<kN, T, Major::mn, Major::mn>(cases, name);
}

inline std::vector<Case> all_cases() {
  std::vector<Case> cases = {
      {"convert", 75, 999, false, [] { return run(&convert_kernel, 768, 256, 0); }},
      {"cvt_rna_tf32", 80, 999, false, [] { return run(&tf32_kernel, 512, 256, 0); }},
      {"cp_async", 75, 999, false, run_cp_async},
      {"ldmatrix", 75, 999, false, [] { return run(&ldmatrix_kernel, 32 * 14, 32, 512); }},
      {"mbarrier", 90, 999, false, [] { return run(&mbarrier_kernel, 63, 64, 256); }},
      {"setmaxnreg", 90, 90, false, [] { return run(&setmaxnreg_kernel, 384, 384, 0); }},
      {"tma_inside", 90, 999, false, [] { return run_tma(8, 3); }},
      {"tma_over_the_end", 90, 999, false, [] { return run_tma(40, 10); }},
      {"tma_before_the_beginning", 90, 999, false, [] { return run_tma(-8, -2); }},
  };
  cases.push_back({"cluster", 90, 109, false, run_cluster});
  cases.push_back({"tma_multicast", 90, 109, false, run_multicast});
  cases.push_back({"grid_barrier", 75, 999, false, run_grid_barrier});
  cases.push_back({"grid_dependency", 75, 999, false, run_dependency});
  add_mma<bfloat16>(cases, "mma_m16n8k16_bf16");
  add_mma<float16>(cases, "mma_m16n8k16_f16");
  add_mma<float>(cases, "mma_m16n8k8_tf32");
  add_wgmma<64, bfloat16>(cases, "wgmma_m64n64k16_bf16");
  add_wgmma<128, bfloat16>(cases, "wgmma_m64n128k16_bf16");
  add_wgmma<256, bfloat16>(cases, "wgmma_m64n256k16_bf16");
  add_wgmma<64, float16>(cases, "wgmma_m64n64k16_f16");
  add_wgmma<128, float16>(cases, "wgmma_m64n128k16_f16");
  add_wgmma<256, float16>(cases, "wgmma_m64n256k16_f16");
  cases.push_back({"tma_tf32", 90, 999, false, run_tma_tf32});
  add_wgmma_tf32<64>(cases, "wgmma_m64n64k8_tf32");
  add_wgmma_tf32<128>(cases, "wgmma_m64n128k8_tf32");
  add_wgmma_tf32<256>(cases, "wgmma_m64n256k8_tf32");
  add_wgmma_registers<16, bfloat16, Major::k>(cases, "wgmma_registers_n16_bf16_k");
  add_wgmma_registers<32, float16, Major::k>(cases, "wgmma_registers_n32_f16_k");
  add_wgmma_registers<64, bfloat16, Major::k>(cases, "wgmma_registers_n64_bf16_k");
  add_wgmma_registers<64, bfloat16, Major::mn>(cases, "wgmma_registers_n64_bf16_mn");
  add_wgmma_registers<64, float16, Major::mn>(cases, "wgmma_registers_n64_f16_mn");
  add_wgmma_registers<128, bfloat16, Major::k>(cases, "wgmma_registers_n128_bf16_k");
  cases.push_back({"wgmma_sums_bf16", 90, 90, false,
                   [] { return run(&wgmma_sums_kernel<bfloat16>, 512, 128, 9216); }});
  cases.push_back({"wgmma_sums_f16", 90, 90, false,
                   [] { return run(&wgmma_sums_kernel<float16>, 512, 128, 9216); }});
  cases.push_back({"pack", 80, 999, false, [] { return run(&pack_kernel, 1024, 256, 0); }});
  return cases;
}

}  // namespace tilegrad::TILEGRAD_BACKEND
