// SPDX-License-Identifier: MIT
#pragma once

#include <pybind11/pybind11.h>

namespace tilegrad::simulator {

void bind_trace(pybind11::module_& m);

}  // namespace tilegrad::simulator
