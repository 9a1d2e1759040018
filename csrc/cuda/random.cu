// SPDX-License-Identifier: MIT
// Math:        y_i = low + (high - low) u_i, u_i the top 24 (float) or 32 (double) bits of word
//              i mod 4 of Philox counter c + i/4, as a fraction of one;
//              y_i = mean + std z_i, z_i of the 2 words from 2 (i mod 2) on of counter c + i/2.
// Shapes:      flat runs of n elements.
// Parallelism: a packet of 16 bytes a thread, grid-stride. Uniform: four floats use up a counter,
//              two doubles half of one. Normal: four floats two counters, two doubles one.
// Memory:      coalesced (an unaligned sector: up to 4 requests); one element written.
// Source:      Salmon et al. (SC11), see philox.hpp; Wichura (AS 241), see normal.hpp.
#include "../normal.hpp"
#include "../ops.hpp"
#include "../philox.hpp"
#include "vector_io.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kThreads = 256;
constexpr int kWords = 4;  // that a counter gives

template <class T>
__global__ void __launch_bounds__(kThreads)
    random_uniform_kernel(T* y, int64_t n, bool aligned, double low, double span, uint64_t seed,
                          uint64_t offset) {
  grid_dependency_wait();
  constexpr int kBits = sizeof(T) == sizeof(float) ? 24 : 32;
  constexpr double kUnit = 1.0 / static_cast<double>(uint64_t{1} << kBits);
  for_slots<T, true>(grid_thread(), grid_threads(), n, aligned, [&](Slot<T> slot) {
    const PhiloxWords words = philox(seed, offset + static_cast<uint64_t>(slot.index(0) / kWords));
    const bool upper = slot.index(0) % kWords != 0;
    Packet<T> packet;
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) {
      const uint32_t word = upper ? words.word[(j + kPacket<T>) % kWords] : words.word[j];
      const double fraction = static_cast<double>(word >> (32 - kBits)) * kUnit;
      packet.at[j] = static_cast<T>(multiply_then_add(span, fraction, low));
    }
    slot.store(y, packet);
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    random_normal_kernel(T* y, int64_t n, bool aligned, double mean, double std, uint64_t seed,
                         uint64_t offset) {
  grid_dependency_wait();
  for_slots<T, true>(grid_thread(), grid_threads(), n, aligned, [&](Slot<T> slot) {
    Packet<T> packet;
#pragma unroll
    for (int j = 0; j < kPacket<T>; j += 2) {
      const PhiloxWords words = philox(seed, offset + static_cast<uint64_t>(slot.index(j) / 2));
      const double first = standard_normal(words.word[0], words.word[1]);
      const double second = standard_normal(words.word[2], words.word[3]);
      packet.at[j] = static_cast<T>(multiply_then_add(std, first, mean));
      packet.at[j + 1] = static_cast<T>(multiply_then_add(std, second, mean));
    }
    slot.store(y, packet);
  });
}

}  // namespace

template <class T>
void random_uniform(Context& context, T* y, int64_t n, double low, double high, uint64_t seed,
                    uint64_t offset) {
  launch_next(random_uniform_kernel<T>, blocks_for(n, kThreads, kPacket<T>), kThreads, 0, context,
              y, n, packet_aligned(y), low, high - low, seed, offset);
}

template <class T>
void random_normal(Context& context, T* y, int64_t n, double mean, double std, uint64_t seed,
                   uint64_t offset) {
  launch_next(random_normal_kernel<T>, blocks_for(n, kThreads, kPacket<T>), kThreads, 0, context, y,
              n, packet_aligned(y), mean, std, seed, offset);
}

template void random_uniform(Context&, float*, int64_t, double, double, uint64_t, uint64_t);
template void random_uniform(Context&, double*, int64_t, double, double, uint64_t, uint64_t);
template void random_normal(Context&, float*, int64_t, double, double, uint64_t, uint64_t);
template void random_normal(Context&, double*, int64_t, double, double, uint64_t, uint64_t);

}  // namespace tilegrad::TILEGRAD_BACKEND
