// SPDX-License-Identifier: MIT
// Kernels as a user of tilegrad.sim.compile writes them, of which it is known what they do; the
// tests (test_sim_kernels.py) find lines by the marks in square brackets.
//
// A comment that names extern "C" __global__ void nothing_kernel(int n), which is not there.
extern "C" __global__ void strided_kernel(float* y, const float* x, int n) {
  const int first = 8 * (blockIdx.x * blockDim.x + threadIdx.x);
  for (int i = first; i < first + 8 && i < n; ++i) y[i] = x[i];  // [strided]
}

extern "C" __global__ void __launch_bounds__(128)
    coalesced_kernel(float* y, const float* x, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[i];  // [coalesced]
}

// Without its `if`: out of bounds unless the grid fits.
extern "C" __global__ void unguarded_kernel(float* y, const float* x, float scale) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  y[i] = scale * x[i];  // [unguarded]
}

// y[block] = the sum of the block's elements.
__device__ void add_up(float* part) {
  const unsigned t = threadIdx.x;
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (t < half) part[t] += part[t + half];  // [add]
    __syncthreads();
  }
}
extern "C" __global__ void static_sum_kernel(double* y, const float* x) {
  __shared__ float part[128];
  part[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
  __syncthreads();
  add_up(part);
  if (threadIdx.x == 0) y[blockIdx.x] = part[0];
}
extern "C" __global__ void dynamic_sum_kernel(double* y, const float* x) {
  extern __shared__ __align__(16) float part[];
  part[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
  __syncthreads();
  add_up(part);
  if (threadIdx.x == 0) y[blockIdx.x] = part[0];
}
extern "C" __global__ void shuffle_sum_kernel(double* y, const float* x) {
  float value = x[blockIdx.x * blockDim.x + threadIdx.x];
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  if (threadIdx.x == 0) y[blockIdx.x] = value;
}
extern "C" __global__ void racing_sum_kernel(double* y, const float* x) {
  __shared__ float racing[64];
  racing[threadIdx.x] = x[threadIdx.x];  // [racing store]
  if (threadIdx.x < 32) y[threadIdx.x] = racing[threadIdx.x] + racing[threadIdx.x + 32];  // [race]
}
extern "C" __global__ void conflict_kernel(float* y, int pitch) {
  __shared__ float tile[32 * 33];
  for (int row = 0; row < 32; ++row) tile[row * pitch + threadIdx.x] = row;
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x * pitch];  // [column]
}
extern "C" __global__ void where_kernel(int* y, long long width, bool add, unsigned char more) {
  const unsigned x = blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned row = blockIdx.y * blockDim.y + threadIdx.y;
  y[row * width + x] = static_cast<int>(100 * row + x) + (add ? more : 0);
}
