// SPDX-License-Identifier: MIT
// What a device backend offers besides its ops: memory and copies for tilegrad.Array, streams,
// properties. python/tilegrad/array.py and cuda.py are the public face.
#include "../../cuda/cross_entropy_choice.hpp"
#include "../../cuda/matmul/hopper_choice.hpp"
#include "../../cuda/matmul_choice.hpp"
#include "../../cuda/train_step/schedule.hpp"
#include "../families.hpp"
#include "storage.hpp"
#ifdef TILEGRAD_SIM
#include "../../sim/launch.hpp"
#include "../../sim/memory.hpp"
#endif

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

size_t bytes_of(const Tensor& tensor) {
  return static_cast<size_t>(tensor.size() * item_size(tensor.dtype));
}

cudaStream_t stream_at(intptr_t address) { return reinterpret_cast<cudaStream_t>(address); }

// The host's side of a copy: as many contiguous bytes as the Array has.
void check_host(const py::array& host, const Tensor& tensor, const char* op) {
  check(static_cast<size_t>(host.nbytes()) == bytes_of(tensor) &&
            (host.flags() & py::array::c_style) != 0,
        "{}: the NumPy array must hold {} contiguous bytes; got {}", op, bytes_of(tensor),
        host.nbytes());
}

py::object new_array(py::handle shape, int dtype, int place) {
  CallContext call;
  call.at(place);
  Dims sizes;
  for (py::handle size : shape) sizes.push(size.cast<int64_t>());
  check(dtype >= 0 && dtype < static_cast<int>(DType::other), "empty: unknown dtype {}", dtype);
  return empty(sizes, static_cast<DType>(dtype), "empty").owner;
}

void copy_from_host(py::handle array, const py::array& host) {
  CallContext call;
  const Tensor out = read(array, "asarray", "the array");
  check_writable(array, "asarray", "the array");
  check_host(host, out, "asarray");
  const auto stream = static_cast<cudaStream_t>((*call).stream);
  const WithoutGil released;
  staging(out.place).upload(out.data, host.data(), bytes_of(out), stream);
}

void copy_to_host(py::array host, py::handle array) {
  CallContext call;
  const Tensor from = read(array, "numpy", "the array");
  check_host(host, from, "numpy");
  const auto stream = static_cast<cudaStream_t>((*call).stream);
  void* out = host.mutable_data();
  const WithoutGil released;
  staging(from.place).download(out, from.data, bytes_of(from), stream);
}

// Within a device, or from one to another.
void copy_array(py::handle out_array, py::handle from_array) {
  CallContext call;
  const Tensor out = array_view(out_array, "copy", "the result");
  check_writable(out_array, "copy", "the result");
  const Tensor from = array_view(from_array, "copy", "the array");
  check(out.shape == from.shape && out.dtype == from.dtype,
        "copy: shapes and dtypes differ; got {} of {} and {} of {}", out.shape,
        dtype_name(out.dtype), from.shape, dtype_name(from.dtype));
  call.at(out.place);
  if (out.place == from.place) return copy_bytes(*call, out.data, from.data, bytes_of(out));
  synchronize(from.place);  // the source's stream does not order this device's
  enter(out.place);
  const auto stream = static_cast<cudaStream_t>((*call).stream);
  CUDA_CHECK(cudaMemcpyAsync(out.data, from.data, bytes_of(out), cudaMemcpyDefault, stream));
  CUDA_CHECK(cudaStreamSynchronize(stream));  // nor does this one order what reuses the source
}

void fill_array(py::handle array, double value) {
  CallContext call;
  const Tensor out = read_float(array, "full", "the array", Floats::all);
  check_writable(array, "full", "the array");
  with_any_float(out.dtype, [&](auto t) { fill(*call, out.as<decltype(t)>(), out.size(), value); });
}

py::object from_dlpack(py::handle object) {
  CallContext call;
  Access access;
  const Tensor tensor = import_dlpack(object, "from_dlpack", "the tensor", &access);
  check_type(tensor.contiguous,
             "from_dlpack: a tensor must be C-contiguous; got shape {} with strides {} (call "
             ".contiguous() on it)",
             tensor.shape, tensor.strides);
  const bool read_only =
      access.read_only || (!PyCapsule_CheckExact(object.ptr()) && is_immutable(object));
  auto storage = std::make_unique<Storage>(tensor.owner, tensor.place, read_only);
  return make_array(new_object(std::move(storage)), tensor.data, tensor.dtype, tensor.place,
                    tensor.shape);
}

// `stream` as the array API has it: 1 and 2 are the legacy and the per-thread default stream, None
// means the legacy one, -1 asks for no order.
py::capsule to_dlpack(py::handle array, py::handle stream, bool versioned, bool copied) {
  const Tensor tensor = array_view(array, "__dlpack__", "the array");
  enter(tensor.place);
  const intptr_t consumer = stream.is_none() ? 1 : stream.cast<intptr_t>();
  auto& storage = array.attr("_storage").cast<Storage&>();
  if (consumer != -1) {
    wait_for(stream_at(consumer), current_stream(tensor.place));
    storage.used_on(stream_at(consumer));
  }
  return export_dlpack(tensor, versioned, storage.read_only(), copied);
}

py::dict properties(int place) {
  enter(place);
  const DeviceInfo& info = device_info();
  size_t free = 0, total = 0;
  CUDA_CHECK(cudaMemGetInfo(&free, &total));
  py::dict result;
  const int capability = device_capability(info.index);
  result["compute_capability"] = py::make_tuple(capability / 10, capability % 10);
  result["multiprocessors"] = info.multiprocessors;
  result["shared_memory_per_block"] = info.shared_bytes;
  result["free_memory"] = free;
  result["total_memory"] = total;
  return result;
}

#ifdef TILEGRAD_SIM
dim3 dim3_of(const py::tuple& sizes) {
  return {sizes[0].cast<unsigned>(), sizes[1].cast<unsigned>(), sizes[2].cast<unsigned>()};
}

// Starts a kernel of another library; the addresses are those of its KernelEntry
// (csrc/sim/kernel_library.hpp).
void launch_kernel(uintptr_t kernel, uintptr_t invoke, uintptr_t touch, const std::string& slots,
                   const py::tuple& grid, const py::tuple& block, size_t dynamic_bytes) {
  CallContext call;
  call.at(kFirstPlace);
  simulator::KernelCall what{};
  what.invoke = reinterpret_cast<decltype(what.invoke)>(invoke);
  what.kernel = reinterpret_cast<const void*>(kernel);
  const auto arguments = std::make_shared<const std::string>(slots);
  what.arguments = {arguments, arguments->data()};
  what.grid = dim3_of(grid);
  what.block = dim3_of(block);
  what.dynamic_bytes = dynamic_bytes;
  const auto stream = static_cast<cudaStream_t>((*call).stream);
  check_launch(dynamic_bytes, what.kernel);
  const WithoutGil released;
  reinterpret_cast<void (*)()>(touch)();
  simulator::launch_call(std::move(what), stream);
  after_launch(stream);
}
#endif

Float32Precision precision_named(const std::string& name) {
  if (name == "highest") return Float32Precision::highest;
  if (name == "high") return Float32Precision::high;
  check(name == "medium",
        "set_float32_matmul_precision: precision must be highest, high or medium; got '{}'", name);
  return Float32Precision::medium;
}

// A network as far as the choice and the schedule of a step by one kernel look at it.
NetworkStep network_of(int64_t rows, const py::list& widths) {
  static float bias = 0;
  NetworkStep network;
  network.rows = rows;
  network.count = static_cast<int>(widths.size()) - 1;
  check(network.count >= 1 && network.count <= kMostStepLayers,
        "_step_schedule: 1 to {} layers; got {}", kMostStepLayers, network.count);
  for (int l = 0; l < network.count; ++l) {
    const auto at = static_cast<size_t>(l);
    network.layers[l] = {};
    network.layers[l].in = widths[at].cast<int64_t>();
    network.layers[l].out = widths[at + 1].cast<int64_t>();
    network.layers[l].bias.data = &bias;
  }
  return network;
}

// The phases of a step by one kernel: lists of (work, tile, layer, items).
py::list step_schedule(int64_t rows, const py::list& widths, int64_t multiprocessors) {
  constexpr const char* kWorks[] = {"prepare",        "forward",       "head",       "loss",
                                    "input_gradient", "weight_update", "bias_update"};
  constexpr const char* kTileNames[] = {"small", "medium", "large"};
  const NetworkStep network = network_of(rows, widths);
  const step::Schedule schedule = step::Scheduler(network, multiprocessors).make();
  py::list phases;
  for (int p = 0; p < schedule.phases; ++p) {
    py::list runs;
    for (int r = schedule.first[p]; r < schedule.first[p + 1]; ++r) {
      const step::Run& run = schedule.runs[r];
      runs.append(py::make_tuple(kWorks[static_cast<int>(run.work)],
                                 kTileNames[static_cast<int>(run.tile)],
                                 static_cast<int>(run.layer), run.items));
    }
    phases.append(runs);
  }
  return phases;
}

}  // namespace

DType numpy_dtype(const py::array& array) {
  const auto name = py::str(array.dtype().attr("name")).cast<std::string>();
  for (int i = 0; i < static_cast<int>(DType::other); ++i) {
    if (name == dtype_name(static_cast<DType>(i))) return static_cast<DType>(i);
  }
  return DType::other;
}

void bind_runtime(py::module_& m) {
  is_array(py::none());  // looks the class up now, while no other thread can be in here
  py::class_<Storage>(m, "Storage", py::module_local());
  m.def("dtype_names", [] {
    py::list names;
    for (int i = 0; i < static_cast<int>(DType::other); ++i) {
      names.append(dtype_name(static_cast<DType>(i)));
    }
    return names;
  });
  m.def("empty", &new_array, py::arg("shape"), py::arg("dtype"), py::arg("place"));
  m.def("copy_from_host", &copy_from_host, py::arg("array"), py::arg("host"));
  m.def("copy_to_host", &copy_to_host, py::arg("host"), py::arg("array"));
  m.def("copy", &copy_array, py::arg("out"), py::arg("array"));
  m.def("fill", &fill_array, py::arg("array"), py::arg("value"));
  m.def("from_dlpack", &from_dlpack, py::arg("tensor"));
  m.def("from_memory", &from_memory, py::arg("owner"), py::arg("pointer"), py::arg("shape"),
        py::arg("dtype"), py::arg("read_only"), py::arg("stream"));
  m.def("to_dlpack", &to_dlpack, py::arg("array"), py::arg("stream"), py::arg("versioned"),
        py::arg("copied"));
  m.def(
      "is_read_only",
      [](py::handle array) { return array.attr("_storage").cast<Storage&>().read_only(); },
      py::arg("array"));

#ifdef TILEGRAD_SIM
  simulator::set_interrupt_check([] {
    py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  });
  m.def("schedule", &simulator::schedule);
  m.def("_launch", &launch_kernel, py::arg("kernel"), py::arg("invoke"), py::arg("touch"),
        py::arg("slots"), py::arg("grid"), py::arg("block"), py::arg("dynamic_bytes"));
  m.def("_memory_table", [] { return reinterpret_cast<uintptr_t>(&simulator::memory()); });
  m.def("_set_schedule", &simulator::set_schedule, py::arg("text"));
  m.def("_set_compute_capability", &simulator::set_compute_capability,
        py::arg("compute_capability"));
  m.def(
      "_work_not_awaited",
      [](intptr_t stream, intptr_t other) {
        return simulator::work_not_awaited(stream_at(stream), stream_at(other));
      },
      py::arg("stream"), py::arg("other"));
#endif
  m.def("_is_immutable", &is_immutable, py::arg("array"));
  m.def("_code_for", &code_for, py::arg("built"), py::arg("compute_capability"));
  m.def("_missing_code", &missing_code, py::arg("built"), py::arg("compute_capability"),
        py::arg("device"));
  // The choices of kernels, pure functions, for their tests.
  m.def(
      "_matmul_choice",
      [](int64_t batch, int64_t rows, int64_t cols, int64_t k, int element_bytes,
         int compute_capability, bool b_along_k, bool whole_a, bool whole_b,
         const std::string& float32, bool k_major) {
        const MatmulTraits traits = {element_bytes, compute_capability,       b_along_k, whole_a,
                                     whole_b,       precision_named(float32), k_major};
        return std::string(choose_matmul({batch, rows, cols, k}, traits));
      },
      py::arg("batch"), py::arg("m"), py::arg("n"), py::arg("k"), py::arg("element_bytes"),
      py::arg("compute_capability"), py::arg("b_along_k"), py::arg("whole_a"), py::arg("whole_b"),
      py::arg("float32") = "highest", py::arg("k_major") = false);
  m.def(
      "_set_float32_matmul_precision",
      [](const std::string& name) { set_float32_precision(precision_named(name)); },
      py::arg("precision"));
  m.def(
      "_hopper_choice",
      [](int64_t batch, int64_t rows, int64_t cols, int64_t k, int multiprocessors,
         int element_bytes) {
        const HopperChoice choice =
            choose_hopper({batch, rows, cols, k}, multiprocessors, element_bytes);
        return py::make_tuple(choice.tile_m, choice.tile_n, choice.pieces);
      },
      py::arg("batch"), py::arg("m"), py::arg("n"), py::arg("k"), py::arg("multiprocessors"),
      py::arg("element_bytes") = 2);
  m.def(
      "_hopper_cycles",
      [](int64_t batch, int64_t rows, int64_t cols, int64_t k, int multiprocessors, int tile_m,
         int tile_n, int pieces, int element_bytes) {
        return hopper_choice::cycles({batch, rows, cols, k}, {tile_m, tile_n, pieces},
                                     multiprocessors, element_bytes);
      },
      py::arg("batch"), py::arg("m"), py::arg("n"), py::arg("k"), py::arg("multiprocessors"),
      py::arg("tile_m"), py::arg("tile_n"), py::arg("pieces"), py::arg("element_bytes") = 2);
  m.def("_step_schedule", &step_schedule, py::arg("rows"), py::arg("widths"),
        py::arg("multiprocessors"));
  m.def(
      "_step_tiles",
      [](int64_t rows, int64_t cols, int64_t k, int64_t multiprocessors) {
        const step::Tile tile = step::choose_tile(rows, cols, k, multiprocessors);
        const step::TileSize size = step::kTiles[static_cast<int>(tile)];
        return py::make_tuple(step::tiles_of(size, rows, cols),
                              k * size.cycles + step::kTileCycles);
      },
      py::arg("m"), py::arg("n"), py::arg("k"), py::arg("multiprocessors"));
  m.def(
      "_takes_network_step",
      [](int64_t rows, const py::list& widths) {
        return takes_network_step(network_of(rows, widths));
      },
      py::arg("rows"), py::arg("widths"));
  m.def(
      "_longest_held_row",
      [](size_t element_bytes, size_t shared_bytes) {
        return longest_held_row(element_bytes, shared_bytes);
      },
      py::arg("element_bytes"), py::arg("shared_bytes"));
  m.def("device_count", [] { return device_count(); });
  m.def("reason_unavailable", [] {
    std::string reason;
    device_count(&reason);
    return reason;
  });
  m.def("properties", &properties, py::arg("place"));
  m.def("release_memory", &release_pool);
  m.def("memory_in_use", [] { return Allocator::instance().in_use(); });
  m.def(
      "synchronize",
      [](int place) {
        const WithoutGil released;
        synchronize(place);
      },
      py::arg("place"));
  m.def(
      "new_stream", [](int place) { return reinterpret_cast<intptr_t>(take_stream(place)); },
      py::arg("place"));
  m.def(
      "delete_stream",
      [](int place, intptr_t stream) { give_stream_back(place, stream_at(stream)); },
      py::arg("place"), py::arg("stream"));
  m.def(
      "current_stream",
      [](int place) {
        enter(place);
        return reinterpret_cast<intptr_t>(current_stream(place));
      },
      py::arg("place"));
  m.def(
      "set_stream", [](int place, intptr_t stream) { set_stream(place, stream_at(stream)); },
      py::arg("place"), py::arg("stream"));
  m.def(
      "synchronize_stream",
      [](int place, intptr_t stream) {
        enter(place);
        const WithoutGil released;
        CUDA_CHECK(cudaStreamSynchronize(stream_at(stream)));
      },
      py::arg("place"), py::arg("stream"));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
