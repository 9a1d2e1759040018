// SPDX-License-Identifier: MIT
// What the drivers of the simulator's tests share: check() and device arrays.
#pragma once

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../csrc/sim/async.hpp"
#include "../../csrc/sim/launch.hpp"
#include "../../csrc/sim/memory.hpp"

namespace sim_test {

using tilegrad::simulator::launch;

// Ends the program with what did not hold.
inline void check(bool holds, const std::string& what) {
  if (holds) return;
  std::printf("FAILED: %s\n", what.c_str());
  std::exit(1);
}

inline void check(cudaError_t error, const std::string& what) {
  check(error == cudaSuccess, what + ": " + cudaGetErrorName(error));
}

// n elements of device memory.
template <class T>
struct DeviceArray {
  T* data = nullptr;
  size_t size;

  explicit DeviceArray(size_t n) : size(n) {
    check(cudaMalloc(&data, n * sizeof(T)), "cudaMalloc");
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    check(cudaMemcpy(data, values.data(), size * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  ~DeviceArray() { cudaFree(data); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  std::vector<T> host() const {
    std::vector<T> values(size);
    check(cudaMemcpy(values.data(), data, size * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return values;
  }
};

// run() must throw std::runtime_error whose text holds every part; prints the text.
inline void check_fault(const std::string& name, const std::function<void()>& run,
                        const std::vector<std::string>& parts) {
  std::string text;
  try {
    run();
  } catch (const std::runtime_error& error) {
    text = error.what();
  }
  check(!text.empty(), name + " was not caught");
  std::printf("caught %s: %s\n", name.c_str(), text.c_str());
  check(text.rfind("sim: ", 0) == 0, name + ": the text does not begin with 'sim: '");
  for (const std::string& part : parts) {
    check(text.find(part) != std::string::npos, name + ": the text lacks '" + part + "'");
  }
}

inline const std::vector<std::string> kSchedules = {
    "forward/eager", "forward/lazy", "reverse/eager",  "reverse/lazy",
    "random:1",      "random:2",     "random:3/eager", "random:4/lazy"};

void run_fault_tests();     // sim_faults.cpp
void run_resident_tests();  // sim_resident.cpp

}  // namespace sim_test
