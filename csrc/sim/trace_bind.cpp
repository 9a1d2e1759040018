// SPDX-License-Identifier: MIT
// What _sim_trace has beyond _sim, for tilegrad/sim.py.
#include "trace_bind.hpp"

#include "../bindings/gil.hpp"
#include "memory.hpp"
#include "trace.hpp"

namespace tilegrad::simulator {

void bind_trace(pybind11::module_& m) {
  m.def("_use_memory",
        [](uintptr_t table) { set_memory(reinterpret_cast<const MemoryTable*>(table)); });
  m.def("_begin_trace", &begin_trace);
  m.def("_end_trace", &end_trace, pybind11::call_guard<TILEGRAD_BACKEND::WithoutGil>());
}

}  // namespace tilegrad::simulator
