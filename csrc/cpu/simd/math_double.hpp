// SPDX-License-Identifier: MIT
//
// The functions of math.hpp for Vec<double>: the C library's, lane by lane, so within its 1 ulp.
#pragma once

#include <math.h>

#include "vec.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {

template <double (*kFunction)(double)>
TILEGRAD_INLINE Vec<double> per_lane(Vec<double> x) {
  double lanes[Vec<double>::kSize];
  x.store(lanes);
  for (double& lane : lanes) lane = kFunction(lane);
  return Vec<double>::load(lanes);
}

TILEGRAD_INLINE Vec<double> exp(Vec<double> x) { return per_lane<::exp>(x); }
TILEGRAD_INLINE Vec<double> expm1(Vec<double> x) { return per_lane<::expm1>(x); }
TILEGRAD_INLINE Vec<double> log(Vec<double> x) { return per_lane<::log>(x); }
TILEGRAD_INLINE Vec<double> log1p(Vec<double> x) { return per_lane<::log1p>(x); }
TILEGRAD_INLINE Vec<double> tanh(Vec<double> x) { return per_lane<::tanh>(x); }
TILEGRAD_INLINE Vec<double> erf(Vec<double> x) { return per_lane<::erf>(x); }
TILEGRAD_INLINE Vec<double> erfc(Vec<double> x) { return per_lane<::erfc>(x); }

}  // namespace tilegrad::cpu::TILEGRAD_ISA
