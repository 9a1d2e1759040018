// SPDX-License-Identifier: MIT
// The CPU bodies of the 16-bit conversions: numbers in on stdin, numbers out on stdout.
#include <cstdio>
#include <cstring>
#include <vector>

#include "../../csrc/cuda/numeric.cuh"

using namespace tilegrad::sim;

template <class In, class Out, class F>
int map_all(F&& f) {
  std::vector<In> in(1 << 16);
  std::vector<Out> out;
  size_t count;
  while ((count = std::fread(in.data(), sizeof(In), in.size(), stdin)) > 0) {
    out.clear();
    for (size_t i = 0; i < count; ++i) out.push_back(f(in[i]));
    if (std::fwrite(out.data(), sizeof(Out), count, stdout) != count) return 1;
  }
  return 0;
}

int main(int, char** argv) {
  const char* mode = argv[1];
  if (std::strcmp(mode, "widen float16") == 0) {
    return map_all<float16, float>([](float16 x) { return widen(x); });
  }
  if (std::strcmp(mode, "widen bfloat16") == 0) {
    return map_all<bfloat16, float>([](bfloat16 x) { return widen(x); });
  }
  if (std::strcmp(mode, "narrow float16") == 0) {
    return map_all<float, float16>([](float x) { return narrow<float16>(x); });
  }
  if (std::strcmp(mode, "narrow bfloat16") == 0) {
    return map_all<float, bfloat16>([](float x) { return narrow<bfloat16>(x); });
  }
  return 2;
}
