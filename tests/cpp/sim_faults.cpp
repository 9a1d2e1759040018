// SPDX-License-Identifier: MIT
// Each fault that the simulator must catch, in a kernel of its own. A kernel stands right below the
// number of the line that its report must name.
#include <cmath>

#include "sim_check.hpp"

namespace sim_test {
namespace {

namespace sim = tilegrad::simulator;

sim::Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return {file, line};
}
std::string at_line(int line) { return "sim_faults.cpp:" + std::to_string(line); }

constexpr int kDivergentLine = __LINE__ + 5;
__global__ void divergent_kernel() {
  if (threadIdx.x < 40) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

constexpr int kEarlyReturnLine = __LINE__ + 3;
__global__ void early_return_kernel(int n) {
  if (static_cast<int>(threadIdx.x) >= n) return;
  __syncthreads();
}

constexpr int kShuffleLine = __LINE__ + 4;
__global__ void shuffle_kernel(float* y) {
  float v = static_cast<float>(threadIdx.x);
  if (threadIdx.x % 32 != 5) {
    v += __shfl_down_sync(0xffffffffu, v, 1);
  }
  y[threadIdx.x] = v;
}

constexpr int kElsewhereLine = __LINE__ + 3;
__global__ void elsewhere_kernel() {
  if (threadIdx.x % 32 != 7) {
    __syncwarp();
  }
  __syncthreads();
}

constexpr int kMasksLine = __LINE__ + 2;
__global__ void masks_kernel() {
  __ballot_sync(threadIdx.x % 32 < 16 ? 0xffffffffu : 0xffff0000u, 1);
}

constexpr int kNoArrivalLine = __LINE__ + 7;
__global__ void no_arrival_kernel() {
  auto* barrier = static_cast<uint64_t*>(sim::dynamic_shared_memory());
  if (threadIdx.x == 0) sim::mbarrier_init(barrier, blockDim.x, here());
  __syncthreads();
  // Thread 3 forgets to arrive.
  if (threadIdx.x != 3) sim::mbarrier_arrive(barrier, 1, here());
  sim::mbarrier_wait_parity(barrier, 0, here());
}

constexpr int kUninitialisedLine = __LINE__ + 3;
__global__ void uninitialised_kernel() {
  auto* barrier = static_cast<uint64_t*>(sim::dynamic_shared_memory());
  sim::mbarrier_arrive(barrier, 1, here());
}

constexpr int kSpinLine = __LINE__ + 3;
__global__ void spin_kernel(const int* flag) {
  const volatile int* p = flag;
  sim::spin_wait([&] { return *p == 1; });
}

constexpr int kNamedLine = __LINE__ + 2;
__global__ void named_barrier_kernel() {
  if (threadIdx.x < 32) sim::named_barrier_sync(1, 64, here());
}

constexpr int kStoreLine = __LINE__ + 2;
__global__ void store_kernel(float* y, int64_t offset) {
  y[static_cast<int64_t>(threadIdx.x) + offset] = 1;
}

constexpr int kLoadLine = __LINE__ + 2;
__global__ void load_kernel(float* y, const float* x, int64_t offset) {
  y[threadIdx.x] = x[offset];
}

__global__ void shared_store_kernel(int64_t offset) {
  static_cast<volatile float*>(sim::dynamic_shared_memory())[offset] = 1;
}

constexpr int kCopyLine = __LINE__ + 3;
__global__ void copy_kernel(const float* x, int64_t offset) {
  auto* shared = static_cast<volatile float*>(sim::dynamic_shared_memory());
  sim::issue({sim::AsyncKind::kCopy, sim::current_thread(), "cp.async", here()},
             [=] { *shared = x[offset]; });
  sim::commit_group(sim::AsyncKind::kCopy, sim::current_thread());
  sim::wait_group(sim::AsyncKind::kCopy, sim::current_thread(), 0);
}

constexpr int kBulkLine = __LINE__ + 3;
__global__ void bulk_kernel() {
  if (threadIdx.x == 6) {
    sim::issue({sim::AsyncKind::kBulk, sim::current_thread(), "cp.async.bulk", here()}, [] {});
    sim::commit_group(sim::AsyncKind::kBulk, sim::current_thread());
  }
}

// y = x through a copy that nobody waits for.
constexpr int kNoWaitLine = __LINE__ + 7;
__global__ void no_wait_kernel(float* y, const float* x) {
  auto* full = static_cast<uint64_t*>(sim::dynamic_shared_memory());
  auto* tile = reinterpret_cast<float*>(full + 1);
  if (threadIdx.x == 0) {
    sim::mbarrier_init(full, 1, here());
    sim::mbarrier_arrive_expect_tx(full, 128, here());
    sim::issue({sim::AsyncKind::kSignal, 0, "cp.async.bulk", here()}, [=] {
      for (int i = 0; i < 32; ++i) tile[i] = x[i];
      sim::mbarrier_complete_tx(full, 128, here());
    });
  }
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x];
}

__attribute__((noinline)) int deep(int n, volatile char* above) {
  volatile char local[1024];
  local[0] = *above;
  return n == 0 ? local[0] : deep(n - 1, local) + local[0];
}
__global__ void stack_kernel(int* y) {
  volatile char start = 1;
  y[0] = deep(1 << 20, &start);
}

__global__ void throwing_kernel() {
  if (threadIdx.x == 2) throw std::invalid_argument("thrown on purpose");
}

__global__ void large_static_kernel(float* y) {
  __shared__ float tile[13000];  // 52,000 bytes
  for (int i = 0; i < 13000; ++i) tile[i] = 1;
  __syncthreads();
  y[0] = tile[threadIdx.x];
}

// y = x reversed, through shared memory; wrong without the barrier.
__global__ void reverse_kernel(float* y, const float* x, bool with_barrier) {
  __shared__ float tile[64];
  tile[threadIdx.x] = x[threadIdx.x];
  if (with_barrier) __syncthreads();
  y[threadIdx.x] = tile[63 - threadIdx.x];
}

// A correct launch, to show that a fault leaves nothing behind.
void check_works() {
  std::vector<float> values(64);
  for (size_t i = 0; i < 64; ++i) values[i] = static_cast<float>(i);
  const DeviceArray<float> x(values), y(64);
  launch(reverse_kernel, dim3(2), dim3(64), 0, nullptr, y.data, x.data, true);
  check(cudaGetLastError(), "launch after a fault");
  const std::vector<float> got = y.host();
  for (size_t i = 0; i < 64; ++i) check(got[i] == values[63 - i], "result after a fault");
}

void fault(const std::string& name, const std::function<void()>& run,
           const std::vector<std::string>& parts) {
  check_fault(name, run, parts);
  check_works();
}

void run_meeting_faults() {
  const DeviceArray<float> y(128);
  const dim3 one(1), two(2);
  fault("divergent __syncthreads", [&] { launch(divergent_kernel, two, dim3(64), 0, nullptr); },
        {"divergent __syncthreads", "thread (40,0,0) of block (0,0,0)", at_line(kDivergentLine),
         at_line(kDivergentLine - 2), "thread (0,0,0)"});
  fault("return before a barrier",
        [&] { launch(early_return_kernel, one, dim3(64), 0, nullptr, 60); },
        {"returned while others", "thread (60,0,0) of block (0,0,0)", at_line(kEarlyReturnLine)});
  sim::set_schedule("reverse/eager");
  fault("return before a barrier, reverse",
        [&] { launch(early_return_kernel, two, dim3(8, 8), 0, nullptr, 4); },
        {"has returned", "of block (1,0,0)", at_line(kEarlyReturnLine)});
  sim::set_schedule("forward/eager");
  fault("shuffle with a lane that returned",
        [&] { launch(shuffle_kernel, one, dim3(64), 0, nullptr, y.data); },
        {"lane", "returned", "__shfl_down_sync", "thread (5,0,0) of block (0,0,0)",
         at_line(kShuffleLine)});
  fault("warp collective with a lane elsewhere",
        [&] { launch(elsewhere_kernel, one, dim3(64), 0, nullptr); },
        {"deadlock", "__syncwarp lacks lanes", "(7,0,0)", at_line(kElsewhereLine),
         at_line(kElsewhereLine + 2)});
  fault("different masks", [&] { launch(masks_kernel, one, dim3(32), 0, nullptr); },
        {"different masks", "thread (16,0,0)", at_line(kMasksLine)});
  fault("an mbarrier that never completes",
        [&] { launch(no_arrival_kernel, one, dim3(64), 16, nullptr); },
        {"deadlock", "threads (0,0,0)..(63,0,0) wait at mbarrier", at_line(kNoArrivalLine)});
  fault("an mbarrier without init",
        [&] { launch(uninitialised_kernel, one, dim3(32), 16, nullptr); },
        {"not initialised", "thread (0,0,0) of block (0,0,0)", at_line(kUninitialisedLine)});
  const DeviceArray<int> flag(std::vector<int>{0});
  fault("a spin loop without end",
        [&] { launch(spin_kernel, one, dim3(2), 0, nullptr, flag.data); },
        {"deadlock", "spin_wait", at_line(kSpinLine)});
  fault("a named barrier that is never full",
        [&] { launch(named_barrier_kernel, one, dim3(64), 0, nullptr); },
        {"deadlock", "threads (0,0,0)..(31,0,0) wait at bar.sync", "32 threads have returned",
         at_line(kNamedLine)});
}

void run_memory_faults() {
  const dim3 one(1), two(2);
  const DeviceArray<float> y(128);
  fault("store far behind a buffer",
        [&] { launch(store_kernel, two, dim3(32), 0, nullptr, y.data, int64_t{120}); },
        {"writes at offset 512 of a buffer of 512 bytes", "thread (8,0,0) of block (0,0,0)",
         at_line(kStoreLine)});
  const DeviceArray<float> short_y(100);
  fault("store right behind a buffer",
        [&] { launch(store_kernel, one, dim3(1), 0, nullptr, short_y.data, int64_t{100}); },
        {"a write at offset 400 of a buffer of 400 bytes", "TILEGRAD_SIM_GUARDS=exact"});
  sim::memory().set_exact(true);
  const DeviceArray<float> exact_y(100);
  sim::memory().set_exact(false);
  fault("store right behind a buffer, exact guards",
        [&] { launch(store_kernel, one, dim3(8), 0, nullptr, exact_y.data, int64_t{95}); },
        {"it writes at offset 400 of a buffer of 400 bytes", "thread (5,0,0) of block (0,0,0)",
         at_line(kStoreLine)});
  fault("load before a buffer",
        [&] { launch(load_kernel, one, dim3(4), 0, nullptr, y.data, y.data, int64_t{-2048}); },
        {"reads at offset -8192 of a buffer of 512 bytes", "thread (0,0,0)", at_line(kLoadLine)});
  fault("a null pointer",
        [&] {
          launch(load_kernel, one, dim3(4), 0, nullptr, y.data, static_cast<const float*>(nullptr),
                 int64_t{0});
        },
        {"null pointer", "thread (0,0,0)", at_line(kLoadLine)});
  float* freed = nullptr;
  check(cudaMalloc(&freed, 4096), "cudaMalloc");
  check(cudaFree(freed), "cudaFree");
  fault("use after free",
        [&] { launch(store_kernel, one, dim3(4), 0, nullptr, freed, int64_t{0}); },
        {"use after free", "freed buffer of 4096 bytes", at_line(kStoreLine)});
  fault("store behind dynamic shared memory",
        [&] { launch(shared_store_kernel, one, dim3(4), 1024, nullptr, int64_t{256}); },
        {"offset 1024 of 1024 bytes of dynamic shared memory", "thread (0,0,0)"});
  fault("store right behind dynamic shared memory",
        [&] { launch(shared_store_kernel, two, dim3(4), 1000, nullptr, int64_t{250}); },
        {"offset 1000 of 1000 bytes of dynamic shared memory", "block (0,0,0)"});
  sim::set_schedule("forward/lazy");
  fault("asynchronous copy out of bounds",
        [&] { launch(copy_kernel, one, dim3(1), 16, nullptr, y.data, int64_t{1000}); },
        {"the copy reads at offset 4000 of a buffer of 512 bytes", "cp.async issued at",
         at_line(kCopyLine)});
  fault(
      "bulk copy in flight at the end", [&] { launch(bulk_kernel, one, dim3(8), 0, nullptr); },
      {"the block ended before cp.async.bulk was complete", "thread (6,0,0)", at_line(kBulkLine)});
  const DeviceArray<float> x(std::vector<float>(32, 3.f));
  fault("a missing mbarrier wait",
        [&] { launch(no_wait_kernel, one, dim3(32), 8 + 128, nullptr, y.data, x.data); },
        {"the block ended before cp.async.bulk was complete", "thread (0,0,0)",
         at_line(kNoWaitLine)});
  check(std::isnan(y.host()[31]), "data that were not waited for");
  sim::set_schedule("forward/eager");
  const DeviceArray<int> result(1);
  fault("stack overflow", [&] { launch(stack_kernel, one, dim3(1), 0, nullptr, result.data); },
        {"stack overflow", "thread (0,0,0) of block (0,0,0)"});
  fault("C++ exception", [&] { launch(throwing_kernel, one, dim3(4), 0, nullptr); },
        {"thrown on purpose", "thread (2,0,0) of block (0,0,0)"});
  fault("static shared memory",
        [&] { launch(large_static_kernel, one, dim3(1), 0, nullptr, y.data); },
        {"49152 bytes of static shared memory", "52000"});
}

// A kernel without its barrier is wrong under some schedule; with it, right under all.
void run_missing_barrier() {
  std::vector<float> values(64);
  for (size_t i = 0; i < 64; ++i) values[i] = static_cast<float>(i);
  const DeviceArray<float> x(values), y(64);
  for (const bool with_barrier : {true, false}) {
    int wrong = 0;
    for (const std::string& schedule : kSchedules) {
      sim::set_schedule(schedule);
      launch(reverse_kernel, dim3(3), dim3(64), 0, nullptr, y.data, x.data, with_barrier);
      const std::vector<float> got = y.host();
      bool right = true;
      for (size_t i = 0; i < 64; ++i) right = right && got[i] == values[63 - i];
      wrong += !right;
    }
    check(with_barrier ? wrong == 0 : wrong == static_cast<int>(kSchedules.size()),
          "missing __syncthreads: wrong under " + std::to_string(wrong) + " schedules");
  }
  sim::set_schedule("forward/eager");
  std::printf("caught a missing __syncthreads: poison in the result under every schedule\n");
}

}  // namespace

void run_fault_tests() {
  run_meeting_faults();
  run_memory_faults();
  run_missing_barrier();
}

}  // namespace sim_test
