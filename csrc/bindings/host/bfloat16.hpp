// SPDX-License-Identifier: MIT
// NumPy's bfloat16: a type that ml_dtypes registers with NumPy when it is imported. It is known by
// its name, so that nothing here imports ml_dtypes before a bfloat16 must be made from nothing.
#pragma once

#include <pybind11/numpy.h>

namespace tilegrad::TILEGRAD_BACKEND {

namespace py = pybind11;

bool is_bfloat16(const py::dtype& dtype);

// TypeError that says how to get it if there is none.
py::dtype bfloat16_dtype(const char* op);

}  // namespace tilegrad::TILEGRAD_BACKEND
