// SPDX-License-Identifier: MIT
// Initial values. One scalar path without libm, so that every machine draws the same bits.
#include "../normal.hpp"
#include "../ops.hpp"
#include "../philox.hpp"

namespace tilegrad::cpu {

// The fraction is exact in double (24 or 32 bits); the line through low and high is evaluated in
// double and rounded to T once, so a float may round up to `high` itself.
template <class T>
void random_uniform(Context&, T* y, int64_t n, double low, double high, uint64_t seed,
                    uint64_t offset) {
  constexpr int kBits = sizeof(T) == sizeof(float) ? 24 : 32;
  constexpr double kUnit = 1.0 / static_cast<double>(uint64_t{1} << kBits);
  const double span = high - low;
  for (int64_t i = 0; i < n; i += 4) {
    const PhiloxWords words = philox(seed, offset + static_cast<uint64_t>(i / 4));
    const int count = n - i < 4 ? static_cast<int>(n - i) : 4;
    for (int j = 0; j < count; ++j) {
      const double fraction = static_cast<double>(words.word[j] >> (32 - kBits)) * kUnit;
      y[i + j] = static_cast<T>(low + span * fraction);
    }
  }
}

template <class T>
void random_normal(Context&, T* y, int64_t n, double mean, double std, uint64_t seed,
                   uint64_t offset) {
  for (int64_t i = 0; i < n; i += 2) {
    const PhiloxWords words = philox(seed, offset + static_cast<uint64_t>(i / 2));
    const int count = n - i < 2 ? 1 : 2;
    for (int j = 0; j < count; ++j) {
      const double z = standard_normal(words.word[2 * j], words.word[2 * j + 1]);
      y[i + j] = static_cast<T>(multiply_then_add(std, z, mean));
    }
  }
}

template void random_uniform(Context&, float*, int64_t, double, double, uint64_t, uint64_t);
template void random_uniform(Context&, double*, int64_t, double, double, uint64_t, uint64_t);
template void random_normal(Context&, float*, int64_t, double, double, uint64_t, uint64_t);
template void random_normal(Context&, double*, int64_t, double, double, uint64_t, uint64_t);

}  // namespace tilegrad::cpu
