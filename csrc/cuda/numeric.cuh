// SPDX-License-Identifier: MIT
// Numbers in device code: the 16-bit types as storage, the type that sums accumulate in, and the
// overloads that activations.hpp is written with. Include it before activations.hpp.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../context.hpp"
#include "../host_device.hpp"
#include "ptx/convert.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

// Accumulate<T>: double for double, float for everything narrower.
template <class T>
struct AccumulateType {
  using type = float;
};
template <>
struct AccumulateType<double> {
  using type = double;
};
template <class T>
using Accumulate = typename AccumulateType<T>::type;

// A stored element as a number, exactly.
__device__ inline float widen(float x) { return x; }
__device__ inline double widen(double x) { return x; }
__device__ inline float widen(bfloat16 x) {
  return bits_to_float(static_cast<uint32_t>(x.bits) << 16);
}
__device__ inline float widen(float16 x) { return half_to_float(x.bits); }

// A number as a stored element, rounded to nearest, ties to even; NaN stays NaN.
template <class T>
__device__ inline T narrow(Accumulate<T> x) {
  return static_cast<T>(x);
}
template <>
__device__ inline bfloat16 narrow<bfloat16>(float x) {
  return {float_to_bfloat(x)};
}
template <>
__device__ inline float16 narrow<float16>(float x) {
  return {float_to_half(x)};
}

// Two numbers as neighbours in memory, the first in the low half: the bits of narrow.
template <class T>
__device__ inline uint32_t narrow_pair(float low, float high) {
  static_assert(sizeof(T) == 2);
  return std::is_same_v<T, bfloat16> ? floats_to_bfloats(low, high) : floats_to_halves(low, high);
}

#define TILEGRAD_MATH(name)                                      \
  __device__ inline float name(float x) { return ::name##f(x); } \
  __device__ inline double name(double x) { return ::name(x); }
TILEGRAD_MATH(exp)
TILEGRAD_MATH(expm1)
TILEGRAD_MATH(log)
TILEGRAD_MATH(log1p)
TILEGRAD_MATH(tanh)
TILEGRAD_MATH(erfc)
TILEGRAD_MATH(sqrt)
#undef TILEGRAD_MATH

__device__ inline float abs(float x) { return ::fabsf(x); }
__device__ inline double abs(double x) { return ::fabs(x); }
__device__ inline float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
__device__ inline double fma(double a, double b, double c) { return ::fma(a, b, c); }

// exp(x) for x <= 0. For results of 16 bits in two instructions: its error, |x| eps of float32, is
// nothing beside theirs, while the eight of expf would take longer than the memory does.
template <class T>
__device__ inline Accumulate<T> exp_of_negative(Accumulate<T> x) {
  if constexpr (sizeof(T) == 2) {
    return exp2_quick(x * 1.44269504f);
  } else {
    return exp(x);
  }
}

// The larger one; a NaN is passed over.
__device__ inline float larger(float a, float b) { return ::fmaxf(a, b); }
__device__ inline double larger(double a, double b) { return ::fmax(a, b); }

template <class V>
__device__ inline V select(bool condition, V yes, V no) {
  return condition ? yes : no;
}
// NaN in either operand passes (fmin and fmax would drop it).
template <class V>
__device__ inline V min(V a, V b) {
  return a < b || a != a ? a : b;
}
template <class V>
__device__ inline V max(V a, V b) {
  return a > b || a != a ? a : b;
}

}  // namespace tilegrad::TILEGRAD_BACKEND
