// SPDX-License-Identifier: MIT
// One function for each family of ops, in the file bind_<family>.cpp.
#pragma once

#include <pybind11/pybind11.h>

namespace tilegrad::TILEGRAD_BACKEND {

void bind_runtime(pybind11::module_& m);
void bind_matmul(pybind11::module_& m);
void bind_linear(pybind11::module_& m);
void bind_fused_mlp(pybind11::module_& m);
void bind_activation(pybind11::module_& m);
void bind_prelu(pybind11::module_& m);
void bind_softmax(pybind11::module_& m);
void bind_cross_entropy(pybind11::module_& m);
void bind_ctc_loss(pybind11::module_& m);
void bind_losses(pybind11::module_& m);
void bind_nll_loss(pybind11::module_& m);
void bind_margin_losses(pybind11::module_& m);
void bind_distance_losses(pybind11::module_& m);
void bind_dropout(pybind11::module_& m);
void bind_optim(pybind11::module_& m);
void bind_plan(pybind11::module_& m);

}  // namespace tilegrad::TILEGRAD_BACKEND
