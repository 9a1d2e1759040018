// SPDX-License-Identifier: MIT
// CUDA's device functions: barriers, shuffles, votes, atomics and intrinsics. Those that block know
// the line that calls them.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../collective.hpp"

#define TILEGRAD_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(TILEGRAD_SITE) {
  tilegrad::simulator::block_barrier(false, "__syncthreads", {file, line});
}
inline int __syncthreads_count(int predicate, TILEGRAD_SITE) {
  return static_cast<int>(
      tilegrad::simulator::block_barrier(predicate != 0, "__syncthreads_count", {file, line}));
}
inline int __syncthreads_or(int predicate, TILEGRAD_SITE) {
  return tilegrad::simulator::block_barrier(predicate != 0, "__syncthreads_or", {file, line}) != 0;
}
inline int __syncthreads_and(int predicate, TILEGRAD_SITE) {
  return tilegrad::simulator::block_barrier(predicate == 0, "__syncthreads_and", {file, line}) == 0;
}

inline void __syncwarp(unsigned mask = 0xffffffffu, TILEGRAD_SITE) {
  unsigned record = 0;
  tilegrad::simulator::warp_collective(mask, record, [](unsigned* const*, unsigned) {},
                                       "__syncwarp", {file, line});
}

namespace tilegrad::simulator {

struct ShuffleRecord {
  uint64_t bits;
  unsigned source;  // lane that is read
  uint64_t result;
};

// A lane outside the mask gives all ones (NaN), where the device gives anything.
template <class T>
inline T shuffle(unsigned mask, T value, unsigned source, const char* what, Site site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
  ShuffleRecord record{0, source, 0};
  std::memcpy(&record.bits, &value, sizeof(T));
  warp_collective(
      mask, record,
      [](ShuffleRecord* const* lanes, unsigned) {
        for (int i = 0; i < 32; ++i) {
          if (lanes[i] == nullptr) continue;
          const ShuffleRecord* from = lanes[lanes[i]->source];
          lanes[i]->result = from == nullptr ? ~uint64_t{0} : from->bits;
        }
      },
      what, site);
  T result;
  std::memcpy(&result, &record.result, sizeof(T));
  return result;
}

inline unsigned ballot(unsigned mask, bool vote, const char* what, Site site) {
  struct Record {
    bool vote;
    unsigned result;
  } record{vote, 0};
  warp_collective(
      mask, record,
      [](Record* const* lanes, unsigned active) {
        unsigned all = 0;
        for (unsigned i = 0; i < 32; ++i) {
          if (active >> i & 1) all |= static_cast<unsigned>(lanes[i]->vote) << i;
        }
        for (unsigned i = 0; i < 32; ++i) {
          if (active >> i & 1) lanes[i]->result = all;
        }
      },
      what, site);
  return record.result;
}

}  // namespace tilegrad::simulator

// `width` lanes form a section; a source outside the section is the lane itself.
template <class T>
inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, TILEGRAD_SITE) {
  const unsigned self = tilegrad::simulator::current_lane(), w = static_cast<unsigned>(width);
  const unsigned source = (self & ~(w - 1)) | (static_cast<unsigned>(lane) & (w - 1));
  return tilegrad::simulator::shuffle(mask, value, source, "__shfl_sync", {file, line});
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, TILEGRAD_SITE) {
  const unsigned self = tilegrad::simulator::current_lane(), w = static_cast<unsigned>(width);
  const unsigned source = (self & (w - 1)) >= delta ? self - delta : self;
  return tilegrad::simulator::shuffle(mask, value, source, "__shfl_up_sync", {file, line});
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, TILEGRAD_SITE) {
  const unsigned self = tilegrad::simulator::current_lane(), w = static_cast<unsigned>(width);
  const unsigned source = (self & (w - 1)) + delta < w ? self + delta : self;
  return tilegrad::simulator::shuffle(mask, value, source, "__shfl_down_sync", {file, line});
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, TILEGRAD_SITE) {
  const unsigned self = tilegrad::simulator::current_lane(), w = static_cast<unsigned>(width);
  const unsigned target = (self ^ static_cast<unsigned>(lanes)) & 31u;
  // Lower sections may be read, higher ones not (PTX ISA, shfl.bfly).
  const unsigned source = target <= (self | (w - 1)) ? target : self;
  return tilegrad::simulator::shuffle(mask, value, source, "__shfl_xor_sync", {file, line});
}

inline unsigned __ballot_sync(unsigned mask, int predicate, TILEGRAD_SITE) {
  return tilegrad::simulator::ballot(mask, predicate != 0, "__ballot_sync", {file, line});
}
inline int __any_sync(unsigned mask, int predicate, TILEGRAD_SITE) {
  return tilegrad::simulator::ballot(mask, predicate != 0, "__any_sync", {file, line}) != 0;
}
inline int __all_sync(unsigned mask, int predicate, TILEGRAD_SITE) {
  return tilegrad::simulator::ballot(mask, predicate == 0, "__all_sync", {file, line}) == 0;
}
#undef TILEGRAD_SITE

// Everything a CUDA thread has written is seen at once.
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}

template <class T>
inline T atomicAdd(T* p, T value) {
  static_assert(std::is_integral_v<T>, "float atomics are not reproducible");
  return __atomic_fetch_add(p, value, __ATOMIC_RELAXED);
}
template <class T>
inline T atomicExch(T* p, T value) {
  return __atomic_exchange_n(p, value, __ATOMIC_RELAXED);
}
template <class T>
inline T atomicCAS(T* p, T expected, T value) {
  __atomic_compare_exchange_n(p, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
template <class T>
inline T atomicOr(T* p, T value) {
  return __atomic_fetch_or(p, value, __ATOMIC_RELAXED);
}
template <class T>
inline T atomicAnd(T* p, T value) {
  return __atomic_fetch_and(p, value, __ATOMIC_RELAXED);
}
template <class T>
inline T atomicMax(T* p, T value) {
  T old = __atomic_load_n(p, __ATOMIC_RELAXED);
  while (old < value &&
         !__atomic_compare_exchange_n(p, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}
template <class T>
inline T atomicMin(T* p, T value) {
  T old = __atomic_load_n(p, __ATOMIC_RELAXED);
  while (value < old &&
         !__atomic_compare_exchange_n(p, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}

template <class T>
inline T __ldg(const T* p) {
  return *p;
}
template <class T>
inline T __ldcs(const T* p) {
  return *p;
}
template <class T>
inline void __stcs(T* p, T value) {
  *p = value;
}

inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }

// Compiled with -ffp-contract=off, so a product and a sum are rounded one by one.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return ::sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return ::fmaf(a, b, c); }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return ::sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return ::fma(a, b, c); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return ::expf(x); }
inline float __logf(float x) { return ::logf(x); }
inline float rsqrtf(float x) { return 1.0f / ::sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / ::sqrt(x); }

inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(uint64_t{a} * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  __extension__ typedef unsigned __int128 wide;
  return static_cast<unsigned long long>(static_cast<wide>(a) * b >> 64);
}
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline unsigned __brev(unsigned x) {
  unsigned result = 0;
  for (int i = 0; i < 32; ++i) result |= (x >> i & 1u) << (31 - i);
  return result;
}
// Four bytes chosen from the eight of (b, a) by the nibbles of `selector`.
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const uint64_t both = uint64_t{b} << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned nibble = selector >> (4 * i) & 15u;
    const auto byte = static_cast<unsigned>(both >> (8 * (nibble & 7u)) & 0xffu);
    result |= (nibble & 8u ? (byte & 0x80u ? 0xffu : 0u) : byte) << (8 * i);
  }
  return result;
}
inline size_t __cvta_generic_to_shared(const void* p) { return reinterpret_cast<size_t>(p); }

// nvcc has these in the global namespace.
inline int min(int a, int b) { return b < a ? b : a; }
inline int max(int a, int b) { return a < b ? b : a; }
inline unsigned min(unsigned a, unsigned b) { return b < a ? b : a; }
inline unsigned max(unsigned a, unsigned b) { return a < b ? b : a; }
inline long min(long a, long b) { return b < a ? b : a; }
inline long max(long a, long b) { return a < b ? b : a; }
inline long long min(long long a, long long b) { return b < a ? b : a; }
inline long long max(long long a, long long b) { return a < b ? b : a; }
inline float min(float a, float b) { return ::fminf(a, b); }
inline float max(float a, float b) { return ::fmaxf(a, b); }
inline double min(double a, double b) { return ::fmin(a, b); }
inline double max(double a, double b) { return ::fmax(a, b); }
