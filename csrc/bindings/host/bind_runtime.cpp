// SPDX-License-Identifier: MIT
// Threads, instruction set, memory, random initial values: what is no op.
#include <vector>

#include <pybind11/typing.h>

#include "../../cpu/isa.hpp"
#include "../../cpu/parallel.hpp"
#include "../../cpu/simd/machine.hpp"
#include "../arrays.hpp"
#include "../families.hpp"
#include "bfloat16.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

void bind_runtime(py::module_& m) {
  // A bad TILEGRAD_CPU or TILEGRAD_NUM_THREADS is an error at import, not at the first op.
  active_isa();
  num_threads();
  m.def("num_threads", &num_threads);
  m.def(
      "set_num_threads",
      [](py::handle object) {
        const int64_t count = parse_integer(object, "set_num_threads", "count");
        check(count >= 1 && count <= kMaxThreads,
              "set_num_threads: count must be in [1, {}]; got {}", kMaxThreads, count);
        set_num_threads(static_cast<int>(count));
      },
      py::arg("count"));
  m.def("isa", [] { return std::string(isa_name(active_isa())); });
  m.def("supported_isas", [] {
    py::typing::List<py::str> names;
    for (Isa isa : kIsas) {
      if (isa_supported(isa)) names.append(std::string(isa_name(isa)));
    }
    return names;
  });
  m.def("_set_isa", &set_isa, py::arg("name"), py::arg("emulated") = false);
  m.def("release_memory", &release_pool);
  // What np.from_dlpack does for other types; None for a tensor of another type.
  m.def(
      "_bfloat16_from_dlpack",
      [](py::handle tensor) -> py::object {
        const py::object array = bfloat16_from_dlpack(tensor, "from_dlpack", "the tensor");
        return array ? array : py::none();
      },
      py::arg("tensor"));
  // Floating-point operations done by so many rounds on each of the threads: for benchmarks.
  m.def(
      "_multiply_add",
      [](int64_t rounds, int threads) {
        Context context;
        context.max_threads = threads;
        const int tasks = thread_limit(context);
        double flops = 0;
        py::gil_scoped_release released;
        std::vector<double> done(static_cast<size_t>(tasks));
        parallel_for(context, tasks, 1e9, [&](int64_t task, int) {
          float sink;
          done[static_cast<size_t>(task)] =
              kernels<MachineKernels<float>>().multiply_add(rounds, &sink);
        });
        for (double part : done) flops += part;
        return flops;
      },
      py::arg("rounds"), py::arg("threads"));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
