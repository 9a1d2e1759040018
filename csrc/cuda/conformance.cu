// SPDX-License-Identifier: MIT
// conformance record FOLDER | replay FOLDER
//
// record runs every case of conformance_cases.cuh that this device can and writes one small JSON
// file each: what the instruction left on real hardware. replay runs the cases of the files that
// are stored in the folder and compares: in the simulator this proves the CPU bodies of ptx/
// against the hardware. Exit status: 0 all agree, 1 some differ, 2 wrong use, 3 nothing stored.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>

#include "conformance_cases.cuh"
#include "conformance_registers.cuh"
#include "conformance_resident.cuh"
#include "conformance_tf32.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

namespace fs = std::filesystem;
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
Words run(Kernel kernel, size_t words, unsigned threads, size_t bytes, Arguments... arguments) {
  const Buffer out(words);
  launch(kernel, dim3(1), dim3(threads), bytes, nullptr, out.data(), arguments...);
  return out.read();
}

Words run_cp_async() {
  const Buffer from(32 * 12, 50);
  return run(&cp_async_kernel, 32 * 12, 32, 32 * 48, static_cast<const uint32_t*>(from.data()));
}

Words run_tma(int x, int y) {
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

LaunchShape shape(unsigned blocks, unsigned threads, size_t bytes) {
  LaunchShape made;
  made.grid = dim3(blocks);
  made.block = dim3(threads);
  made.dynamic_bytes = bytes;
  return made;
}

Words run_cluster() {
  const Buffer out(4 * 192);
  LaunchShape two = shape(4, 64, 8 + 3 * 256);
  two.cluster = 2;
  launch(&cluster_kernel, two, nullptr, out.data());
  return out.read();
}

Words run_multicast() {
  const Buffer from(3 * 21 * 48, 70), out(2048 + 1024);
  LaunchShape two = shape(2, 64, 4 * 2048 + 8);
  two.cluster = 2;
  launch(&multicast_kernel, two, nullptr, out.data(),
         make_tensor_map(from.data(), {3, {90, 21, 3}, {1, 96, 21 * 96}, {64, 16, 1}}));
  return out.read();
}

Words run_grid_barrier() {
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

Words run_dependency() {
  const Buffer out(512, 90);
  LaunchShape row = shape(4, 64, 0);
  row.overlaps = true;
  for (uint32_t round = 0; round < 8; ++round) {
    launch(&dependency_kernel, row, nullptr, out.data(), round);
  }
  return out.read();
}

// Floats of every exponent, infinities, NaN and ties.
Words run_tma_tf32() {
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
void add_wgmma_tf32(std::vector<Case>& cases, const std::string& name) {
  cases.push_back(
      {name, 90, 90, false, [] { return run(&wgmma_tf32_kernel<kN, false>, 128, 128, 40960); }});
  if (kN == 64) {
    cases.push_back({name + "_rounding", 90, 90, true,
                     [] { return run(&wgmma_tf32_kernel<64, true>, 4096, 128, 40960); }});
  }
}

template <class T>
void add_mma(std::vector<Case>& cases, const std::string& name) {
  cases.push_back({name, 80, 999, false, [] { return run(&mma_kernel<T, false>, 128, 32, 0); }});
  cases.push_back(
      {name + "_rounding", 80, 999, true, [] { return run(&mma_kernel<T, true>, 128, 32, 0); }});
}

template <int kN, class T, Major kMajorB>
void add_wgmma_registers(std::vector<Case>& cases, const std::string& name) {
  cases.push_back({name, 90, 90, false,
                   [] { return run(&wgmma_registers_kernel<kN, T, kMajorB>, 128, 128, 16384); }});
}

template <int kN, class T, Major kMajorA, Major kMajorB>
void add_wgmma(std::vector<Case>& cases, const std::string& name) {
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
void add_wgmma(std::vector<Case>& cases, const std::string& name) {
  add_wgmma<kN, T, Major::k, Major::k>(cases, name);
  add_wgmma<kN, T, Major::k, Major::mn>(cases, name);
  add_wgmma<kN, T, Major::mn, Major::k>(cases, name);
  add_wgmma<kN, T, Major::mn, Major::mn>(cases, name);
}

std::vector<Case> all_cases() {
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

bool runs_here(const Case& one) {
  const int capability = device_info().compute_capability;
  return one.lowest <= capability && capability <= one.highest;
}

int record(const fs::path& folder) {
  cudaDeviceProp properties;
  CUDA_CHECK(cudaGetDeviceProperties(&properties, device_info().index));
  fs::create_directories(folder);
  int count = 0;
  for (const Case& one : all_cases()) {
    if (!runs_here(one)) continue;
    std::ofstream file(folder / (one.name + ".json"));
    file << "{\"case\": \"" << one.name << "\", \"device\": \"" << properties.name
         << "\", \"words\": \"";
    char text[9];
    for (const uint32_t word : one.run()) {
      std::snprintf(text, sizeof(text), "%08x", word);
      file << text;
    }
    file << "\"}\n";
    if (!file.flush()) throw std::runtime_error("conformance: cannot write to " + folder.string());
    ++count;
  }
  std::printf("recorded %d cases on %s\n", count, properties.name);
  return 0;
}

// The text of a field of the files that record writes.
std::string field(const std::string& json, const std::string& name) {
  const std::string key = "\"" + name + "\": \"";
  const size_t start = json.find(key);
  const size_t end = json.find('"', start + key.size());
  if (start == std::string::npos || end == std::string::npos) return "";
  return json.substr(start + key.size(), end - start - key.size());
}

// Where the words first differ, or -1. Floats of a rounding case may differ by 1e-5: their sums are
// of at most 17 numbers below 1, and the hardware may drop bits below the largest of them.
int64_t difference(const Case& one, const Words& actual, const std::string& stored) {
  if (stored.size() != actual.size() * 8) return 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const auto word = static_cast<uint32_t>(std::stoul(stored.substr(i * 8, 8), nullptr, 16));
    const bool same =
        one.rounding
            ? std::fabs(std::bit_cast<float>(word) - std::bit_cast<float>(actual[i])) <= 1e-5f
            : word == actual[i];
    if (!same) return static_cast<int64_t>(i);
  }
  return -1;
}

int replay(const fs::path& folder) {
  const std::vector<Case> cases = all_cases();
  int replayed = 0, different = 0, skipped = 0;
  std::vector<fs::path> files;
  if (fs::is_directory(folder)) {
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (entry.path().extension() == ".json") files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  for (const fs::path& path : files) {
    std::stringstream text;
    text << std::ifstream(path).rdbuf();
    const std::string name = field(text.str(), "case");
    const auto one = std::find_if(cases.begin(), cases.end(),
                                  [&](const Case& each) { return each.name == name; });
    if (one != cases.end() && !runs_here(*one)) {
      std::printf("skipped %s: needs compute capability %d\n", name.c_str(), one->lowest);
      ++skipped;
      continue;
    }
    ++replayed;
    const int64_t at =
        one == cases.end() ? 0 : difference(*one, one->run(), field(text.str(), "words"));
    if (at >= 0) {
      ++different;
      std::printf("%s differs from %s at word %lld\n", path.filename().c_str(),
                  field(text.str(), "device").c_str(), static_cast<long long>(at));
    }
  }
  std::printf("%d golden files stored, %d replayed, %d differ, %d skipped\n",
              static_cast<int>(files.size()), replayed, different, skipped);
  if (replayed == 0) return 3;
  return different == 0 ? 0 : 1;
}

int run_command(int count, char** arguments) {
  const std::string mode = count == 3 ? arguments[1] : "";
  try {
    if (mode == "record") return record(arguments[2]);
    if (mode == "replay") return replay(arguments[2]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "conformance: %s\n", error.what());
    return 1;
  }
  std::fprintf(stderr, "usage: conformance record FOLDER | conformance replay FOLDER\n");
  return 2;
}

}  // namespace
}  // namespace tilegrad::TILEGRAD_BACKEND

int main(int count, char** arguments) {
  return tilegrad::TILEGRAD_BACKEND::run_command(count, arguments);
}
