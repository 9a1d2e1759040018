// SPDX-License-Identifier: MIT
// A standard normal number from two random words, the same bits on every machine.
//
// Math:   z = +-Phi^-1(1 - p); the top bit of 64 is the sign, the other 63 are k, and
//         p = (k + 1/2) / 2^64 is in (0, 1/2]: tails to 9.2 standard deviations. Near the middle
//         z = q A(q^2) / B(q^2) with q = 1/2 - p; in the tail z is a quotient of polynomials in
//         sqrt(-ln p). With p = m 2^e and m near 1, ln p = e ln 2 + 2 artanh((m - 1) / (m + 1)).
//         The relative error of z is below 1e-15.
// Source: Wichura: Algorithm AS 241: the percentage points of the normal distribution (Applied
//         Statistics 37, 1988), routine PPND16, whose coefficients these are.
//
// Only + - * / and sqrt are used, which IEEE 754 defines to the last bit; libm's log is not.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "host_device.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

// a b + c with both roundings: a contracted fma would draw other bits than the CPU.
TILEGRAD_HOST_DEVICE inline double multiply_then_add(double a, double b, double c) {
#ifdef __CUDA_ARCH__
  return __dadd_rn(__dmul_rn(a, b), c);
#else
  return a * b + c;
#endif
}

// c[0] + c[1] x + c[2] x^2 + ...
template <int kCount>
TILEGRAD_HOST_DEVICE inline double polynomial(const double (&c)[kCount], double x) {
  double sum = c[kCount - 1];
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
  for (int i = kCount - 2; i >= 0; --i) sum = multiply_then_add(sum, x, c[i]);
  return sum;
}

// ln x of a positive normal number.
TILEGRAD_HOST_DEVICE inline double portable_log(double x) {
  constexpr double kLn2 = 0.693147180559945309417;
  // artanh(s) / s in powers of s^2 <= 0.0295: the next term is below 1e-17 of the sum.
  constexpr double kSeries[] = {1.0,      1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9, 1.0 / 11,
                                1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21};
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  int exponent = static_cast<int>(bits >> 52) - 1023;
  bits = (bits & 0xFFFFFFFFFFFFFu) | 0x3FF0000000000000u;
  double mantissa;
  std::memcpy(&mantissa, &bits, sizeof mantissa);
  if (mantissa > 1.41421356) {
    mantissa *= 0.5;
    ++exponent;
  }
  const double s = (mantissa - 1) / (mantissa + 1);
  return multiply_then_add(exponent, kLn2, 2 * s * polynomial(kSeries, s * s));
}

// The z >= 0 that a normal number exceeds with probability p in (0, 1/2].
TILEGRAD_HOST_DEVICE inline double normal_upper_quantile(double p) {
  constexpr double kMiddle[] = {3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427,
                                13731.693765509461125, 45921.953931549871457, 67265.770927008700853,
                                33430.575583588128105, 2509.0809287301226727};
  constexpr double kMiddleBelow[] = {1.0,
                                     42.313330701600911252,
                                     687.18700749205790830,
                                     5394.1960214247511077,
                                     21213.794301586595867,
                                     39307.895800092710610,
                                     28729.085735721942674,
                                     5226.4952788528545610};
  constexpr double kNear[] = {1.42343711074968357734,   4.63033784615654529590,
                              5.76949722146069140550,   3.64784832476320460504,
                              1.27045825245236838258,   0.241780725177450611770,
                              0.0227238449892691845833, 7.74545014278341407640e-4};
  constexpr double kNearBelow[] = {1.0,
                                   2.05319162663775882187,
                                   1.67638483018380384940,
                                   0.689767334985100004550,
                                   0.148103976427480074590,
                                   0.0151986665636164571966,
                                   5.47593808499534494600e-4,
                                   1.05075007164441684324e-9};
  constexpr double kFar[] = {6.65790464350110377720,    5.46378491116411436990,
                             1.78482653991729133580,    0.296560571828504891230,
                             0.0265321895265761230930,  1.24266094738807843860e-3,
                             2.71155556874348757815e-5, 2.01033439929228813265e-7};
  constexpr double kFarBelow[] = {1.0,
                                  0.599832206555887937690,
                                  0.136929880922735805310,
                                  0.0148753612908506148525,
                                  7.86869131145613259100e-4,
                                  1.84631831751005468180e-5,
                                  1.42151175831644588870e-7,
                                  2.04426310338993978564e-15};
  const double q = 0.5 - p;
  if (q <= 0.425) {
    const double r = multiply_then_add(-q, q, 0.180625);
    return q * polynomial(kMiddle, r) / polynomial(kMiddleBelow, r);
  }
  const double r = std::sqrt(-portable_log(p));
  if (r <= 5) return polynomial(kNear, r - 1.6) / polynomial(kNearBelow, r - 1.6);
  return polynomial(kFar, r - 5) / polynomial(kFarBelow, r - 5);
}

TILEGRAD_HOST_DEVICE inline double standard_normal(uint32_t high, uint32_t low) {
  const uint64_t k = (uint64_t{high} << 32 | low) & 0x7FFFFFFFFFFFFFFFu;
  const double p = multiply_then_add(static_cast<double>(k), 0x1p-64, 0x1p-65);
  const double z = normal_upper_quantile(p);
  return high >> 31 != 0 ? -z : z;
}

}  // namespace tilegrad::TILEGRAD_BACKEND
