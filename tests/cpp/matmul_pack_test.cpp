// SPDX-License-Identifier: MIT
// pack() writes its panel and nothing behind it, for every width, also one that is no multiple of a
// vector (the panels of A): zeros where the matrix has no lanes.
#include "../../csrc/cpu/simd/matmul_pack.hpp"

#include <cstdio>
#include <vector>

namespace {

int failures = 0;

template <class T>
void check(int64_t width, int64_t lanes, int64_t k, int64_t lane_step, int64_t step) {
  constexpr T kGuard = T(-7);
  constexpr int64_t kBehind = 64;
  std::vector<T> source(static_cast<size_t>(lanes * lane_step + k * step + 1));
  for (size_t i = 0; i < source.size(); ++i) source[i] = T(i % 1000 + 1);
  std::vector<T> packed(static_cast<size_t>(width * k + kBehind), kGuard);
  tilegrad::cpu::TILEGRAD_ISA::pack(packed.data(), width, source.data(), lane_step, step, lanes, k);
  bool ok = true;
  for (int64_t p = 0; p < k; ++p) {
    for (int64_t l = 0; l < width; ++l) {
      const T wanted = l < lanes ? source[static_cast<size_t>(l * lane_step + p * step)] : T(0);
      ok = ok && packed[static_cast<size_t>(p * width + l)] == wanted;
    }
  }
  for (int64_t i = 0; i < kBehind; ++i) {
    ok = ok && packed[static_cast<size_t>(width * k + i)] == kGuard;
  }
  if (!ok && ++failures <= 20) {
    std::printf("%d bytes, width %d, lanes %d, k %d, steps %d and %d\n",
                static_cast<int>(sizeof(T)), static_cast<int>(width), static_cast<int>(lanes),
                static_cast<int>(k), static_cast<int>(lane_step), static_cast<int>(step));
  }
}

template <class T>
void check_all() {
  for (int64_t width = 1; width <= 70; ++width) {
    for (int64_t lanes = 1; lanes <= width; ++lanes) {
      for (int64_t k : {1, 3, 19}) {
        check<T>(width, lanes, k, 1, lanes + 2);
        check<T>(width, lanes, k, k + 1, 1);
        check<T>(width, lanes, k, 2, 2 * lanes);
      }
    }
  }
}

}  // namespace

int main() {
  check_all<float>();
  check_all<double>();
  if (failures > 0) std::printf("%d failures\n", failures);
  return failures > 0;
}
