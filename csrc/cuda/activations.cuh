// SPDX-License-Identifier: MIT
// The activation formulas over device numbers: the overloads they use must be declared first.
#pragma once

#include "numeric.cuh"
//
#include "../activations.hpp"
