// SPDX-License-Identifier: MIT
// What the tests of csrc/cuda/ptx share: they run a kernel of one block in the simulator, under
// three schedules, and print one line a check.
#pragma once

#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "cuda/ptx/convert.cuh"
#include "cuda/ptx/site.cuh"

namespace tilegrad::sim {

inline int failures = 0;

inline void expect(bool good, const char* what) {
  std::printf("%s %s\n", good ? "ok" : "FAIL", what);
  failures += !good;
}

// The simulator has to end `launch` with a report that contains `text`.
template <class Launch>
void expect_fault(const Launch& launch, const char* text, const char* what) {
  std::string report = "no fault";
  try {
    launch();
  } catch (const std::runtime_error& error) {
    report = error.what();
  }
  const bool found = report.find(text) != std::string::npos;
  if (!found) std::printf("got: %s\n", report.c_str());
  expect(found, what);
}

template <class Kernel, class... Arguments>
void run(Kernel kernel, unsigned threads, size_t bytes, Arguments... arguments) {
  simulator::launch(kernel, dim3(1), dim3(threads), bytes, nullptr, arguments...);
}

inline unsigned char* shared() {
  return static_cast<unsigned char*>(simulator::dynamic_shared_memory());
}

// Section "Tensors, Swizzling Modes", 128B: chunk of 16 bytes that each chunk of a row goes to.
inline constexpr int kSwizzle[8][8] = {{0, 1, 2, 3, 4, 5, 6, 7}, {1, 0, 3, 2, 5, 4, 7, 6},
                                       {2, 3, 0, 1, 6, 7, 4, 5}, {3, 2, 1, 0, 7, 6, 5, 4},
                                       {4, 5, 6, 7, 0, 1, 2, 3}, {5, 4, 7, 6, 1, 0, 3, 2},
                                       {6, 7, 4, 5, 2, 3, 0, 1}, {7, 6, 5, 4, 3, 2, 1, 0}};

// Where a byte lies after the swizzle, by the table.
inline int swizzled(int byte) {
  const int row = byte / 128, chunk = byte / 16 % 8;
  return row * 128 + kSwizzle[row % 8][chunk] * 16 + byte % 16;
}

// Returns main's result.
template <class Tests>
int run_tests(const Tests& tests) {
  for (const char* schedule : {"forward/eager", "reverse/lazy", "random:7"}) {
    simulator::set_schedule(schedule);
    std::printf("schedule %s\n", schedule);
    tests();
  }
  return failures != 0;
}

}  // namespace tilegrad::sim
