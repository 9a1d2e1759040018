// SPDX-License-Identifier: MIT
// The simulator's runtime by itself: small correct kernels under every schedule, the host API, and
// (sim_faults.cpp) faults, (sim_resident.cpp) clusters and cooperative grids. Prints what it has
// checked; ends with 1 at the first thing that is wrong. "sim_test device" prints the device and
// the schedule that the environment chooses.
#include <cmath>
#include <cstring>
#include <thread>

#include "sim_check.hpp"

namespace sim_test {
namespace {

namespace sim = tilegrad::simulator;

sim::Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return {file, line};
}

// y[block] = sum of x over the block: shuffles in warps, then static shared memory.
__global__ void sum_kernel(int* y, const int* x) {
  __shared__ int totals[8];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int value = x[blockIdx.x * blockDim.x + threadIdx.x];
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  }
  if (lane == 0) totals[warp] = value;
  __syncthreads();
  if (warp == 0) {
    int total = lane < blockDim.x / 32 ? totals[lane] : 0;
    for (int distance = 16; distance > 0; distance /= 2) {
      total += __shfl_down_sync(0xffffffffu, total, distance);
    }
    if (lane == 0) y[blockIdx.x] = total;
  }
}

void test_sum() {
  std::vector<int> values(5 * 256);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<int>(i * i % 1013);
  const DeviceArray<int> x(values), y(5);
  launch(sum_kernel, dim3(5), dim3(256), 0, nullptr, y.data, x.data);
  const std::vector<int> got = y.host();
  for (size_t b = 0; b < 5; ++b) {
    int expected = 0;
    for (size_t i = 0; i < 256; ++i) expected += values[b * 256 + i];
    check(got[b] == expected, "block sum");
  }
}

// One result a lane for each collective.
__global__ void lanes_kernel(double* y) {
  const auto lane = static_cast<int>(threadIdx.x);
  const double v = lane * 1.5;
  double* row = y + lane;
  row[0 * 32] = __shfl_sync(0xffffffffu, v, lane * 7);
  row[1 * 32] = __shfl_up_sync(0xffffffffu, v, 3, 8);
  row[2 * 32] = __shfl_down_sync(0xffffffffu, v, 3, 16);
  row[3 * 32] = __shfl_xor_sync(0xffffffffu, v, 5);
  row[4 * 32] = __ballot_sync(0xffffffffu, lane % 3 == 0);
  row[5 * 32] = __any_sync(0xffffffffu, lane == 31) + 2 * __all_sync(0xffffffffu, lane < 31);
  row[6 * 32] = __syncthreads_count(lane < 10) + 100 * __syncthreads_and(1) +
                1000 * __syncthreads_or(lane == 4);
  row[7 * 32] = lane < 16 ? __shfl_xor_sync(0x0000ffffu, v, 1) : __shfl_xor_sync(0xffff0000u, v, 2);
}

void test_lanes() {
  const DeviceArray<double> y(8 * 32);
  launch(lanes_kernel, dim3(1), dim3(32), 0, nullptr, y.data);
  const std::vector<double> got = y.host();
  for (int i = 0; i < 32; ++i) {
    const double expected[] = {i * 7 % 32 * 1.5,
                               (i % 8 >= 3 ? i - 3 : i) * 1.5,
                               (i % 16 + 3 < 16 ? i + 3 : i) * 1.5,
                               (i ^ 5) * 1.5,
                               double{0x49249249},
                               1,
                               1110,
                               (i < 16 ? i ^ 1 : i ^ 2) * 1.5};
    for (int row = 0; row < 8; ++row) {
      check(got[static_cast<size_t>(row * 32 + i)] == expected[row],
            "warp function " + std::to_string(row) + ", lane " + std::to_string(i));
    }
  }
}

// A ring of two stages: warp 0 issues copies that complete on `full`, the others consume and
// arrive on `empty`. y = the sum of each stage's 32 values, by named barriers of the consumers.
__global__ void ring_kernel(float* y, const float* x, int steps) {
  auto* full = static_cast<uint64_t*>(sim::dynamic_shared_memory());
  uint64_t* empty = full + 2;
  auto* stage = reinterpret_cast<float*>(full + 4);  // (2, 32)
  if (threadIdx.x == 0) {
    for (int s = 0; s < 2; ++s) {
      sim::mbarrier_init(full + s, 1, here());
      sim::mbarrier_init(empty + s, 64, here());
    }
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    if (threadIdx.x != 0) return;
    for (int k = 0; k < steps; ++k) {
      const int s = k % 2;
      sim::mbarrier_wait_parity(empty + s, static_cast<unsigned>(k / 2 + 1) & 1u, here());
      sim::mbarrier_arrive_expect_tx(full + s, 128, here());
      sim::issue({sim::AsyncKind::kSignal, 0, "cp.async.bulk", here()}, [=] {
        std::memcpy(stage + s * 32, x + k * 32, 128);
        sim::mbarrier_complete_tx(full + s, 128, here());
      });
    }
    return;
  }
  for (int k = 0; k < steps; ++k) {
    const int s = k % 2;
    sim::mbarrier_wait_parity(full + s, static_cast<unsigned>(k / 2) & 1u, here());
    if (threadIdx.x == 40) {
      float sum = 0;
      for (int i = 0; i < 32; ++i) sum += stage[s * 32 + i];
      y[k] = sum;
    }
    sim::named_barrier_sync(1, 64, here());
    sim::mbarrier_arrive(empty + s, 1, here());
  }
}

void test_ring() {
  constexpr int kSteps = 7;
  std::vector<float> values(kSteps * 32);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 11);
  const DeviceArray<float> x(values), y(kSteps);
  launch(ring_kernel, dim3(1), dim3(96), 32 + 256, nullptr, y.data, x.data, kSteps);
  const std::vector<float> got = y.host();
  for (size_t k = 0; k < kSteps; ++k) {
    float expected = 0;
    for (size_t i = 0; i < 32; ++i) expected += values[k * 32 + i];
    check(got[k] == expected, "ring, step " + std::to_string(k));
  }
}

// cp.async: y[0..] with the wait, y[32..] read before it (poison unless the copy was eager).
__global__ void copy_kernel(float* y, const float* x) {
  auto* shared = static_cast<float*>(sim::dynamic_shared_memory());
  const unsigned t = threadIdx.x;
  sim::issue({sim::AsyncKind::kCopy, t, "cp.async", here()}, [=] { shared[t] = x[t]; });
  sim::commit_group(sim::AsyncKind::kCopy, t);
  y[32 + t] = shared[t];
  sim::wait_group(sim::AsyncKind::kCopy, t, 0);
  y[t] = shared[t];
}

void test_copy(const std::string& schedule) {
  const DeviceArray<float> x(std::vector<float>(32, 3.f)), y(64);
  launch(copy_kernel, dim3(1), dim3(32), 128, nullptr, y.data, x.data);
  const std::vector<float> got = y.host();
  for (size_t i = 0; i < 32; ++i) {
    check(got[i] == 3, "cp.async");
    if (schedule.find("eager") != std::string::npos) check(got[32 + i] == 3, "eager cp.async");
    if (schedule.find("lazy") != std::string::npos) check(std::isnan(got[32 + i]), "lazy cp.async");
  }
}

thread_local int host_value = 41;  // beside the static shared arrays: kernels must not disturb it

// Uninitialised shared memory is NaN in every block of every launch.
__global__ void poison_kernel(int* nans) {
  __shared__ float tile[64];
  __syncthreads();
  const float before = tile[threadIdx.x];
  const float dynamic = static_cast<const float*>(sim::dynamic_shared_memory())[threadIdx.x];
  tile[threadIdx.x] = 1;
  if (before != before && dynamic != dynamic) atomicAdd(nans, 1);
}

void test_poison() {
  const DeviceArray<int> nans(std::vector<int>{0});
  for (int i = 0; i < 8; ++i) {
    launch(poison_kernel, dim3(3), dim3(64), 256, nullptr, nans.data);
    check(host_value++ == 41 + i, "a thread_local of the host");
  }
  host_value = 41;
  check(nans.host()[0] == 8 * 3 * 64, "poisoned shared memory");
}

__global__ void add_kernel(int* y, int value) { y[threadIdx.x] += value; }

void test_capture() {
  const DeviceArray<int> y(std::vector<int>(4, 0));
  cudaStream_t stream, other;
  cudaEvent_t fork, join;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  check(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), "stream");
  check(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming), "event");
  check(cudaEventCreateWithFlags(&join, cudaEventDisableTiming), "event");
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "begin");
  int value = 5;
  launch(add_kernel, dim3(1), dim3(4), 0, stream, y.data, value);
  value = 100;  // the graph has frozen 5
  check(cudaEventRecord(fork, stream), "record");
  check(cudaStreamWaitEvent(other, fork), "wait");
  launch(add_kernel, dim3(1), dim3(2), 0, other, y.data, 10);
  check(cudaEventRecord(join, other), "record");
  check(cudaStreamWaitEvent(stream, join), "wait");
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  check(cudaStreamEndCapture(stream, &graph), "end");
  check(y.host()[0] == 0, "a captured launch does not run");
  check(cudaGraphInstantiate(&executable, graph), "instantiate");
  check(cudaGraphDestroy(graph), "destroy");
  for (int i = 0; i < 3; ++i) check(cudaGraphLaunch(executable, stream), "graph launch");
  check(y.host() == std::vector<int>({45, 45, 15, 15}), "three launches of a graph");
  check(cudaGraphExecDestroy(executable), "destroy");

  const auto refused = [&](const char* what, cudaError_t error, const std::function<void()>& work) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "begin");
    work();
    check(cudaStreamEndCapture(stream, &graph) == error, std::string("capture: ") + what);
    cudaGetLastError();
  };
  refused("synchronise", cudaErrorStreamCaptureInvalidated, [&] {
    check(cudaStreamSynchronize(stream) == cudaErrorStreamCaptureUnsupported, "synchronise");
  });
  void* p = nullptr;
  refused("cudaMalloc", cudaErrorStreamCaptureInvalidated,
          [&] { check(cudaMalloc(&p, 4) == cudaErrorStreamCaptureUnsupported, "cudaMalloc"); });
  refused("unjoined", cudaErrorStreamCaptureUnjoined, [&] {
    check(cudaEventRecord(fork, stream), "record");
    check(cudaStreamWaitEvent(other, fork), "wait");
    launch(add_kernel, dim3(1), dim3(2), 0, other, y.data, 10);
  });
  check(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal) ==
            cudaErrorStreamCaptureUnsupported,
        "the default stream cannot be captured");
  cudaGetLastError();
  check(cudaStreamDestroy(stream), "destroy");
  check(cudaStreamDestroy(other), "destroy");
  check(cudaEventDestroy(fork), "destroy");
  check(cudaEventDestroy(join), "destroy");
  check(cudaStreamSynchronize(stream) == cudaErrorInvalidResourceHandle, "a destroyed stream");
  cudaGetLastError();
  std::printf("capture: frozen arguments, two streams, three launches, refused calls\n");
}

void test_memory() {
  size_t free_before = 0, total = 0, free_after = 0;
  check(cudaMemGetInfo(&free_before, &total), "cudaMemGetInfo");
  void* p = nullptr;
  check(cudaMalloc(&p, total + 1) == cudaErrorMemoryAllocation && p == nullptr, "out of memory");
  check(cudaGetLastError() == cudaErrorMemoryAllocation, "the last error");
  check(cudaGetLastError(), "it is told once");
  {
    const DeviceArray<char> buffer(1000);
    check(reinterpret_cast<uintptr_t>(buffer.data) % 256 == 0, "alignment");
    std::vector<char> host(2000, 7);
    check(
        cudaMemcpy(buffer.data, host.data(), 1001, cudaMemcpyHostToDevice) == cudaErrorInvalidValue,
        "a copy past the end");
    check(cudaMemcpy(host.data(), host.data(), 10, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue,
          "host memory as device memory");
    check(cudaMemset(buffer.data + 990, 0, 11) == cudaErrorInvalidValue, "memset past the end");
    check(cudaFree(buffer.data + 1) == cudaErrorInvalidValue, "free of an inner address");
    cudaPointerAttributes attributes;
    check(cudaPointerGetAttributes(&attributes, buffer.data + 5), "attributes");
    check(attributes.type == cudaMemoryTypeDevice, "device memory");
    check(cudaPointerGetAttributes(&attributes, host.data()), "attributes");
    check(attributes.type == cudaMemoryTypeUnregistered, "host memory");
    check(static_cast<unsigned char>(buffer.host()[999]) == 0xFF, "new memory is poisoned");
    cudaGetLastError();
  }
  check(cudaMemGetInfo(&free_after, &total), "cudaMemGetInfo");
  check(free_after == free_before, "everything was freed");
  std::printf("memory: out of memory, ranges of copies, attributes, nothing leaked\n");
}

void test_configuration() {
  const DeviceArray<int> y(std::vector<int>(4, 0));
  const auto refused = [&](dim3 grid, dim3 block, size_t bytes, cudaError_t error) {
    launch(add_kernel, grid, block, bytes, nullptr, y.data, 1);
    check(cudaGetLastError() == error, "a launch that CUDA refuses");
  };
  refused(dim3(1), dim3(1025), 0, cudaErrorInvalidConfiguration);
  refused(dim3(1), dim3(0), 0, cudaErrorInvalidConfiguration);
  refused(dim3(1), dim3(1, 1, 65), 0, cudaErrorInvalidConfiguration);
  refused(dim3(1, 65536), dim3(1), 0, cudaErrorInvalidConfiguration);
  refused(dim3(1), dim3(4), 48 * 1024 + 1, cudaErrorInvalidValue);
  int most = 0;
  check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0), "attribute");
  check(cudaFuncSetAttribute(add_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most + 1) ==
            cudaErrorInvalidValue,
        "more shared memory than the device has");
  cudaGetLastError();
  check(cudaFuncSetAttribute(add_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most),
        "all of the shared memory");
  refused(dim3(1), dim3(4), static_cast<size_t>(most), cudaSuccess);
  check(y.host() == std::vector<int>(4, 1), "only the good launch ran");
  for (const char* text : {"", "backward", "forward/", "forward/now", "random:", "random:x",
                           "reverse:3", "random:1/eager/lazy"}) {
    bool caught = false;
    try {
      sim::set_schedule(text);
    } catch (const std::invalid_argument& error) {
      caught = std::string(error.what()).find("a schedule is forward") != std::string::npos;
    }
    check(caught, std::string("bad schedule '") + text + "'");
  }
  std::printf("configuration: blocks, grids, shared memory, schedules\n");
}

void test_intrinsics() {
  check(__byte_perm(0x33221100u, 0x77665544u, 0x7250u) == 0x77225500u, "__byte_perm");
  check(__byte_perm(0x000000ffu, 0, 0xd8u) == 0xffff00ffu, "__byte_perm, signs");
  check(__umulhi(0xffffffffu, 0xffffffffu) == 0xfffffffeu, "__umulhi");
  check(__clz(0) == 32 && __clz(1) == 31 && __popc(0xf0f0u) == 8 && __ffs(8) == 4, "bits");
  check(__brev(1) == 0x80000000u, "__brev");
  float4 v = make_float4(1, 2, 3, 4);
  float4 w;
  w = v;
  check(w.x == 1 && w.w == 4 && sizeof(float4) == 16 && alignof(float4) == 16, "float4");
  check(sizeof(double2) == 16 && alignof(double2) == 16 && alignof(float2) == 8, "vectors");
  int counter = 5;
  check(
      atomicMax(&counter, 9) == 5 && atomicMin(&counter, 2) == 9 && atomicCAS(&counter, 2, 7) == 2,
      "atomics");
  check(atomicExch(&counter, 1) == 7 && atomicAdd(&counter, 3) == 1 && counter == 4, "atomics");
  std::printf("intrinsics and vectors\n");
}

void test_host_threads() {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([] {
      for (int repeat = 0; repeat < 20; ++repeat) {
        test_sum();
        test_poison();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::printf("four host threads at a time\n");
}

void print_device() {
  int major = 0, minor = 0, shared = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "attribute");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0), "attribute");
  check(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0), "attribute");
  size_t free_bytes = 0, total = 0;
  check(cudaMemGetInfo(&free_bytes, &total), "memory");
  std::printf("cc %d%d shared %d memory %zu schedule %s\n", major, minor, shared, total,
              sim::schedule().c_str());
}

}  // namespace
}  // namespace sim_test

int main(int count, char** words) {
  using namespace sim_test;
  if (count > 1 && std::string(words[1]) == "device") {
    try {
      print_device();
    } catch (const std::invalid_argument& error) {
      std::printf("refused: %s\n", error.what());
    }
    return 0;
  }
  for (const std::string& schedule : kSchedules) {
    sim::set_schedule(schedule);
    test_sum();
    test_lanes();
    test_ring();
    test_copy(schedule);
    test_poison();
    std::printf("schedule %s: sum, lanes, ring, copies, poison\n", schedule.c_str());
  }
  sim::set_schedule("forward/eager");
  test_intrinsics();
  test_memory();
  test_configuration();
  test_capture();
  test_host_threads();
  run_fault_tests();
  run_resident_tests();
  std::printf("all passed\n");
}
