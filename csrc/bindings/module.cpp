// SPDX-License-Identifier: MIT
#include "../check.hpp"
#include "families.hpp"
#ifdef TILEGRAD_TRACE
#include "../sim/trace_bind.hpp"
#endif

// Every backend's module is made from this file, so it registers nothing global: exceptions are
// translated locally and classes are module_local.
PYBIND11_MODULE(TILEGRAD_MODULE, m) {
  using namespace tilegrad::TILEGRAD_BACKEND;
  pybind11::register_local_exception_translator([](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const tilegrad::TypeError& e) {
      PyErr_SetString(PyExc_TypeError, e.what());
    }
  });
  bind_runtime(m);
  bind_matmul(m);
  bind_linear(m);
  bind_fused_mlp(m);
  bind_activation(m);
  bind_prelu(m);
  bind_softmax(m);
  bind_cross_entropy(m);
  bind_ctc_loss(m);
  bind_losses(m);
  bind_nll_loss(m);
  bind_margin_losses(m);
  bind_distance_losses(m);
  bind_dropout(m);
  bind_optim(m);
  bind_plan(m);
#ifdef TILEGRAD_TRACE
  tilegrad::simulator::bind_trace(m);
#endif
}
