// SPDX-License-Identifier: MIT
// DLPack for NumPy's arrays. np.from_dlpack knows no bfloat16, takes tensors without memory for
// arrays of its own and, before NumPy 2.1, knows no DLPack 1: so it is not used.
#pragma once

#include <pybind11/numpy.h>

namespace tilegrad::TILEGRAD_BACKEND {

namespace py = pybind11;

// The ndarray that shares the memory of a tensor behind __dlpack__ or in a capsule; read-only where
// its producer does not say that it may be written.
py::array array_from_dlpack(py::handle object, const char* op, const char* name);

// A capsule for the memory of an ndarray. BufferError for what a capsule cannot say.
py::capsule array_to_dlpack(const py::array& array, bool versioned, bool copied);

}  // namespace tilegrad::TILEGRAD_BACKEND
