// SPDX-License-Identifier: MIT
// conformance record FOLDER | replay FOLDER
//
// record runs every case of conformance_table.cuh that this device can and writes one small JSON
// file each: what the instruction left on real hardware. replay runs the cases of the files that
// are stored in the folder and compares: in the simulator this proves the CPU bodies of ptx/
// against the hardware. Exit status: 0 all agree, 1 some differ, 2 wrong use, 3 nothing stored.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "conformance_table.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

namespace fs = std::filesystem;

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
