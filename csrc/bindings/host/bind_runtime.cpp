// SPDX-License-Identifier: MIT
// Threads, instruction set, memory, random initial values: what is no op.
#include <cstring>
#include <vector>

#include <pybind11/numpy.h>
#include <pybind11/typing.h>

#include "../../cpu/isa.hpp"
#include "../../cpu/parallel.hpp"
#include "../../cpu/simd/machine.hpp"
#include "../arrays.hpp"
#include "../families.hpp"
#include "exchange.hpp"

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
  m.def(
      "_from_dlpack",
      [](py::handle tensor) { return array_from_dlpack(tensor, "from_dlpack", "the tensor"); },
      py::arg("tensor"));
  m.def("_to_dlpack", &array_to_dlpack, py::arg("array"), py::arg("versioned"), py::arg("copied"));
  // Floating-point operations done by so many rounds on each of the threads: for benchmarks.
  m.def(
      "_multiply_add",
      [](int64_t rounds, int threads) {
        Context context;
        context.max_threads = threads;
        const int tasks = thread_limit(context);
        double flops = 0;
        const WithoutGil released;
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
  // Each row of the source is copied so many times by a thread of its own; returns the bytes read
  // and written: for benchmarks.
  m.def(
      "_copy",
      [](py::array_t<float, py::array::c_style> target,
         const py::array_t<float, py::array::c_style>& source, int64_t rounds) {
        check(source.ndim() == 2 && target.ndim() == 2 && source.nbytes() == target.nbytes() &&
                  source.shape(0) == target.shape(0),
              "_copy: source and target must have the same two sizes; got {} and {} bytes",
              source.nbytes(), target.nbytes());
        Context context;
        context.max_threads = static_cast<int>(source.shape(0));
        float* to = target.mutable_data();
        const float* from = source.data();
        const int64_t columns = source.shape(1);
        const WithoutGil released;
        parallel_for(context, source.shape(0), 1e9, [&](int64_t row, int) {
          for (int64_t i = 0; i < rounds; ++i) {
            std::memcpy(to + row * columns, from + row * columns, sizeof(float) * columns);
            asm volatile("" ::: "memory");  // else the compiler may leave copies out
          }
        });
        return 2.0 * sizeof(float) * static_cast<double>(source.size() * rounds);
      },
      py::arg("target").noconvert(), py::arg("source").noconvert(), py::arg("rounds"));
  m.def("_jobs_and_tasks", &jobs_and_tasks);
}

}  // namespace tilegrad::TILEGRAD_BACKEND
