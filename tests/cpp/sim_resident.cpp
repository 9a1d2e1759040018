// SPDX-License-Identifier: MIT
// Several resident blocks: clusters and cooperative grids, under every schedule, and their faults.
// A kernel stands right below the number of the line that its report must name.
#define TILEGRAD_BACKEND sim
#include <cmath>
#include <cstring>

#include "../../csrc/cuda/device.cu"
#include "../../csrc/cuda/grid_barrier.cuh"
#include "../../csrc/cuda/launch.cuh"
#include "../../csrc/cuda/ptx/barrier.cuh"
#include "../../csrc/cuda/ptx/cluster.cuh"
#include "../../csrc/cuda/ptx/fence.cuh"
#include "../../csrc/cuda/ptx/mbarrier.cuh"
#include "../../csrc/cuda/ptx/tma.cuh"
#include "sim_check.hpp"

namespace sim_test {
namespace {

using namespace tilegrad::sim;
namespace simulator = tilegrad::simulator;

std::string at_line(int line) { return "sim_resident.cpp:" + std::to_string(line); }

LaunchShape shape(unsigned blocks, unsigned threads, size_t bytes, unsigned cluster,
                  bool cooperative = false) {
  LaunchShape made;
  made.grid = dim3(blocks);
  made.block = dim3(threads);
  made.dynamic_bytes = bytes;
  made.cluster = cluster;
  made.cooperative = cooperative;
  return made;
}

// Everything that a block has of its own: its words, barrier 0, a named barrier, a shuffle. y = the
// sum over the cluster of each block's words, or NaN if fresh shared memory was not poison.
template <bool kRight>
__global__ void exchange_kernel(float* y) {
  auto* const words = dynamic_smem<float>();  // (threads), total
  const unsigned t = threadIdx.x, n = blockDim.x;
  const bool fresh = std::isnan(words[t]);
  float* const total = words + n;
  words[t] = static_cast<float>(1000 * blockIdx.x + t);
  __syncthreads();
  if (t < 64) named_barrier_sync(1, 64);
  if (t < 32) {
    float sum = 0;
    for (unsigned i = t; i < n; i += 32) sum += words[i];
    for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
    if (t == 0) *total = fresh ? sum : NAN;
  }
  if (kRight) cluster_sync();
  float sum = 0;
  for (int rank = 0; rank < cluster_size(); ++rank) sum += *cluster_peer(total, rank);
  y[blockIdx.x * n + t] = sum + static_cast<float>(cluster_rank());
  cluster_sync();
}

bool exchange(bool right) {
  constexpr unsigned kBlocks = 8, kThreads = 80, kCluster = 4;
  const DeviceArray<float> y(kBlocks * kThreads);
  auto* const kernel = right ? exchange_kernel<true> : exchange_kernel<false>;
  launch(kernel, shape(kBlocks, kThreads, (kThreads + 1) * 4, kCluster), nullptr, y.data);
  const std::vector<float> got = y.host();
  bool good = true;
  for (unsigned i = 0; i < got.size(); ++i) {
    const unsigned block = i / kThreads, first = block / kCluster * kCluster;
    float expected = static_cast<float>(block - first);
    for (unsigned rank = 0; rank < kCluster; ++rank) {
      expected +=
          static_cast<float>(1000 * (first + rank) * kThreads + kThreads * (kThreads - 1) / 2);
    }
    good = good && got[i] == expected;
  }
  return good;
}

// The ring of a product: each block loads half of a stage for both, and fills a stage again when
// all warps of both have read it. One warp of a block copies and returns early; two add.
__global__ void multicast_kernel(float* y, const TensorMap map, int steps) {
  constexpr int kStages = 2, kHalf = 64 * 8 * 2;      // bytes of a box of 8 rows
  auto* const tiles = dynamic_smem<unsigned char>();  // (kStages, {half 0, half 1})
  auto* const full = reinterpret_cast<uint64_t*>(tiles + kStages * 2 * kHalf);
  uint64_t* const empty = full + kStages;
  const int rank = cluster_rank();
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      mbarrier_init(full + s, 1);
      mbarrier_init(empty + s, 4);
    }
    fence_mbarrier_init();
  }
  cluster_sync();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  if (warp == 0) {
    if (threadIdx.x != 0) return;
    for (int k = 0; k < steps; ++k) {
      const int s = k % kStages;
      mbarrier_wait<WaitScope::cluster>(empty + s, static_cast<uint32_t>(k / kStages + 1) & 1u);
      mbarrier_arrive_expect_tx(full + s, 2 * kHalf);
      tma_load_3d_multicast(tiles + (2 * s + rank) * kHalf, map, 0, 8 * rank, k, full + s, 3);
    }
    return;
  }
  for (int k = 0; k < steps; ++k) {
    const int s = k % kStages;
    mbarrier_wait(full + s, static_cast<uint32_t>(k / kStages) & 1u);
    const auto* const values = reinterpret_cast<const uint16_t*>(tiles + 2 * s * kHalf);
    float sum = 0;
    for (int i = static_cast<int>(threadIdx.x) - 32; i < 1024; i += 64) sum += values[i];
    y[(static_cast<int>(blockIdx.x) * steps + k) * 64 + static_cast<int>(threadIdx.x) - 32] = sum;
    __syncwarp();
    if (threadIdx.x % 32 < 2) mbarrier_arrive_peer(empty + s, static_cast<int>(threadIdx.x % 32));
  }
  cluster_sync();
}

void test_multicast() {
  constexpr int kSteps = 5;
  std::vector<uint16_t> values(kSteps * 16 * 64);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint16_t>(i % 251);
  const DeviceArray<uint16_t> x(values);
  const DeviceArray<float> y(4 * kSteps * 64);
  const TensorMap map = make_tensor_map(x.data, {3, {64, 16, kSteps}, {1, 64, 1024}, {64, 8, 1}});
  launch(multicast_kernel, shape(4, 96, 2 * 2048 + 32, 2), nullptr, y.data, map, kSteps);
  const std::vector<float> got = y.host();
  for (size_t block = 0; block < 4; ++block) {
    for (size_t k = 0; k < kSteps; ++k) {
      float sum = 0, expected = 0;
      for (size_t t = 0; t < 64; ++t) sum += got[(block * kSteps + k) * 64 + t];
      for (size_t i = 0; i < 1024; ++i) expected += values[k * 1024 + i];
      check(sum == expected, "multicast, step " + std::to_string(k));
    }
  }
}

// Rounds in which each block reads what its neighbour wrote before the barrier.
template <bool kRight>
__global__ void grid_kernel(int* y, int* words, GridBarrier* barrier) {
  const unsigned next = (blockIdx.x + 1) % gridDim.x, t = threadIdx.x;
  int sum = 0;
  for (int round = 0; round < 3; ++round) {
    words[blockIdx.x * blockDim.x + t] = static_cast<int>(blockIdx.x) * 100 + round;
    if (kRight) grid_sync(barrier);
    sum += words[next * blockDim.x + blockDim.x - 1 - t];
    grid_sync(barrier);
  }
  y[blockIdx.x * blockDim.x + t] += sum;
}

// Three replays of a graph, then whether all is as it must be.
bool grid(bool right) {
  constexpr unsigned kBlocks = 6, kThreads = 40;
  const DeviceArray<int> y(std::vector<int>(kBlocks * kThreads, 0));
  const DeviceArray<int> words(std::vector<int>(kBlocks * kThreads, -1000));
  const DeviceArray<GridBarrier> barrier(std::vector<GridBarrier>(1, GridBarrier{0}));
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "begin");
  launch(right ? grid_kernel<true> : grid_kernel<false>, shape(kBlocks, kThreads, 0, 1, true),
         stream, y.data, words.data, barrier.data);
  check(cudaStreamEndCapture(stream, &graph), "end");
  check(cudaGraphInstantiate(&executable, graph), "instantiate");
  for (int i = 0; i < 3; ++i) check(cudaGraphLaunch(executable, stream), "graph launch");
  check(cudaGraphExecDestroy(executable), "destroy");
  check(cudaGraphDestroy(graph), "destroy");
  check(cudaStreamDestroy(stream), "destroy");
  // Six phases right, three else, in each of three replays.
  check((barrier.host()[0].counter & 0x7fffffffu) == 0, "the counter of the grid's barrier");
  const std::vector<int> got = y.host();
  bool good = true;
  for (unsigned i = 0; i < got.size(); ++i) {
    const int next = static_cast<int>((i / kThreads + 1) % kBlocks);
    good = good && got[i] == 3 * (300 * next + 3);
  }
  return good;
}

__global__ void nothing_kernel() {}

void test_refused() {
  const auto refused = [](const LaunchShape& wanted, const std::string& part) {
    std::string text;
    try {
      launch(nothing_kernel, wanted, nullptr);
    } catch (const std::runtime_error& error) {
      text = error.what();
    }
    check(text.find(part) != std::string::npos, "'" + text + "' lacks '" + part + "'");
  };
  // 4 multiprocessors of 2048 threads and 228 KB, of which 1 KB a block is the system's.
  check(resident_blocks(nothing_kernel, dim3(1024), 0) == 8, "by threads");
  check(resident_blocks(nothing_kernel, dim3(33), 0) == 4 * 32, "by blocks");
  check(resident_blocks(nothing_kernel, dim3(64), 75 * 1024) == 4 * 3, "by shared memory");
  check(resident_blocks(nothing_kernel, dim3(64), 227 * 1024) == 4, "by shared memory");
  launch(nothing_kernel, shape(8, 1024, 0, 1, true), nullptr);
  refused(shape(9, 1024, 0, 1, true),
          "cuda: 8 blocks of 1024 threads and 0 bytes of dynamic shared memory fit this device at "
          "once; a cooperative grid has 9");
  refused(shape(5, 32, 200 * 1024, 1, true), "4 blocks of 32 threads and 204800 bytes");
  refused(shape(6, 32, 0, 4), "got 4 of 6 blocks on 90");
  refused(shape(16, 32, 0, 16), "a cluster has 1 to 8 blocks");
  simulator::launch_resident(nothing_kernel, dim3(9), dim3(1024), 0, {1, true}, nullptr);
  check(cudaGetLastError() == cudaErrorCooperativeLaunchTooLarge, "the runtime's error");
  simulator::launch_resident(nothing_kernel, dim3(9), dim3(1024), 0, {2, false}, nullptr);
  check(cudaGetLastError() == cudaErrorInvalidClusterSize, "the runtime's error");
  simulator::set_compute_capability(80);
  refused(shape(6, 32, 0, 2), "got 2 of 6 blocks on 80");
  launch(nothing_kernel, shape(8, 1024, 0, 1, true), nullptr);
  simulator::set_compute_capability(90);
}

// ---- faults -------------------------------------------------------------------------------------

constexpr int kWaitLine = __LINE__ + 6;
__global__ void unmet_kernel() {
  auto* const barrier = dynamic_smem<uint64_t>();
  if (threadIdx.x == 0) mbarrier_init(barrier, 1);
  cluster_sync();
  if (cluster_rank() == 1) mbarrier_wait(barrier, 0);
  cluster_sync();
}

constexpr int kTwiceLine = __LINE__ + 3;
__global__ void twice_kernel() {
  cluster_arrive();
  if (cluster_rank() == 1 && threadIdx.x == 3) cluster_arrive();
  cluster_wait();
}

constexpr int kNoArrivalLine = __LINE__ + 1;
__global__ void no_arrival_kernel() { cluster_wait(); }

constexpr int kGoneLine = __LINE__ + 4;
__global__ void gone_kernel(float* y) {
  auto* const word = dynamic_smem<float>();
  if (cluster_rank() == 1) return;
  y[threadIdx.x] = *cluster_peer(word, 1);
}

constexpr int kArriveGoneLine = __LINE__ + 5;
__global__ void arrive_gone_kernel() {
  auto* const barrier = dynamic_smem<uint64_t>();
  if (threadIdx.x == 0) mbarrier_init(barrier, 64);
  cluster_sync();
  if (cluster_rank() == 0) mbarrier_arrive_peer(barrier, 1);
}

constexpr int kRankLine = __LINE__ + 2;
__global__ void rank_kernel(float* y) {
  y[threadIdx.x] = *cluster_peer(dynamic_smem<float>(), cluster_rank() + 1);
}

__global__ void outside_kernel() {
  auto* const words = dynamic_smem<volatile float>();
  if (blockIdx.x == 3) words[10] = 1;
  cluster_sync();
}

__global__ void static_kernel(float* y) {
  __shared__ float word;
  if (threadIdx.x == 0) word = static_cast<float>(blockIdx.x);
  __syncthreads();
  y[blockIdx.x] = word;
}

__global__ void early_kernel(GridBarrier* barrier) {
  if (blockIdx.x != 2) grid_sync(barrier);
}

constexpr int kMaskLine = __LINE__ + 3;
__global__ void mask_kernel(const TensorMap map) {
  auto* const tile = dynamic_smem<unsigned char>();
  tma_load_3d_multicast(tile, map, 0, 0, 0, reinterpret_cast<uint64_t*>(tile + 1024), 4);
}

constexpr int kNoWaitLine = __LINE__ + 3;
__global__ void no_wait_kernel() {
  if (threadIdx.x != 5) grid_dependency_wait();
  __syncthreads();
}

void fault(const std::string& name, const std::function<void()>& run,
           const std::vector<std::string>& parts) {
  check_fault(name, run, parts);
  check(exchange(true), "a launch after " + name);
}

void run_faults() {
  const DeviceArray<float> y(256);
  fault("a cluster's barrier that a block does not reach",
        [&] { launch(unmet_kernel, shape(4, 32, 8, 2), nullptr); },
        {"deadlock", "block (0,0,0); threads (0,0,0)..(31,0,0) wait at barrier.cluster.wait",
         "block (1,0,0); threads (0,0,0)..(31,0,0) wait at mbarrier", at_line(kWaitLine - 1)});
  fault("a second arrival without a wait",
        [&] { launch(twice_kernel, shape(2, 32, 8, 2), nullptr); },
        {"the wait for the last one is missing", "thread (3,0,0) of block (1,0,0)",
         at_line(kTwiceLine)});
  fault("a cluster's wait without an arrival",
        [&] { launch(no_arrival_kernel, shape(2, 32, 8, 2), nullptr); },
        {"this thread has not arrived", at_line(kNoArrivalLine)});
  simulator::set_schedule("reverse/eager");
  fault("shared memory of a block that has ended",
        [&] { launch(gone_kernel, shape(4, 32, 64, 2), nullptr, y.data); },
        {"reads at offset 0 of 64 bytes of dynamic shared memory of block (3,0,0), which has ended",
         "thread (31,0,0) of block (2,0,0)", at_line(kGoneLine)});
  fault("an arrival at a block that has ended",
        [&] { launch(arrive_gone_kernel, shape(2, 32, 8, 2), nullptr); },
        {"block (1,0,0) has ended", "of block (0,0,0)", at_line(kArriveGoneLine)});
  simulator::set_schedule("forward/eager");
  fault("a rank outside the cluster",
        [&] { launch(rank_kernel, shape(4, 32, 64, 2), nullptr, y.data); },
        {"the cluster has 2 blocks; got rank 2", "block (1,0,0)", at_line(kRankLine)});
  const DeviceArray<uint16_t> x(std::vector<uint16_t>(1024, 1));
  const TensorMap map = make_tensor_map(x.data, {3, {64, 16, 1}, {1, 64, 0}, {64, 8, 1}});
  fault("a multicast to blocks that are not there",
        [&] { launch(mask_kernel, shape(2, 1, 1032, 2), nullptr, map); },
        {"the cluster does not have the blocks of the mask", at_line(kMaskLine)});
  fault("store behind the shared memory of a resident block",
        [&] { launch(outside_kernel, shape(4, 32, 40, 4), nullptr); },
        {"a write at offset 40 of 40 bytes of dynamic shared memory; block (3,0,0)"});
  fault("static shared memory of resident blocks",
        [&] { launch(static_kernel, shape(2, 32, 0, 2), nullptr, y.data); },
        {"has dynamic shared memory only here", "4 bytes of static __shared__"});
  const DeviceArray<GridBarrier> barrier(std::vector<GridBarrier>(1, GridBarrier{0}));
  fault("a grid's barrier that a block does not reach",
        [&] { launch(early_kernel, shape(4, 32, 0, 1, true), nullptr, barrier.data); },
        {"deadlock", "block (0,0,0); thread (0,0,0) waits at spin_wait", "block (3,0,0)",
         "wait at __syncthreads"});
}

// What a captured plan asks of its kernels.
void run_overlap() {
  tilegrad::sim::Context context;
  const auto start = [&] { launch_next(no_wait_kernel, dim3(2), dim3(32), 0, context); };
  start();
  fault("a kernel that overlaps without a wait",
        [&] {
          const OverlapScope overlap;
          start();
        },
        {"calls grid_dependency_wait first", "thread (5,0,0) of block (0,0,0)",
         at_line(kNoWaitLine)});
}

// Without its barrier a kernel is wrong under some schedule.
void run_missing_barriers() {
  int cluster = 0, whole = 0;
  for (const std::string& schedule : kSchedules) {
    simulator::set_schedule(schedule);
    cluster += !exchange(false);
    whole += !grid(false);
  }
  simulator::set_schedule("forward/eager");
  check(cluster > 0 && whole > 0, "missing barriers of clusters and grids");
  std::printf("caught a missing cluster_sync: wrong under %d schedules\n", cluster);
  std::printf("caught a missing grid_sync: wrong under %d schedules\n", whole);
}

}  // namespace

void run_resident_tests() {
  for (const std::string& schedule : kSchedules) {
    simulator::set_schedule(schedule);
    check(exchange(true), "a cluster's exchange");
    test_multicast();
    check(grid(true), "a grid's barrier");
    std::printf("schedule %s: clusters, multicast, grids\n", schedule.c_str());
  }
  simulator::set_schedule("forward/eager");
  test_refused();
  std::printf("residency: what fits, what is refused\n");
  run_faults();
  run_overlap();
  run_missing_barriers();
}

}  // namespace sim_test
