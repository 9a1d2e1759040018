// SPDX-License-Identifier: MIT
// Many threads call ops at once on shared inputs, each with a workspace of its own, and get the
// bits of a call alone. To be run under ThreadSanitizer (tests/run_sanitized.py).
#include <atomic>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "../../csrc/cpu/parallel.hpp"
#include "../../csrc/ops.hpp"

namespace cpu = tilegrad::cpu;

namespace {

constexpr int kCallers = 64, kRounds = 6;
constexpr int64_t kRows = 96, kWidth = 200;

std::vector<float> values(int64_t n, uint32_t state) {
  std::vector<float> result(static_cast<size_t>(n));
  for (float& value : result) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(state >> 8) * 0x1p-22f - 2;
  }
  return result;
}

const std::vector<float> x = values(kRows * kWidth, 1);
const std::vector<float> weight = values(kWidth * kWidth, 2);
const std::vector<float> bias = values(kWidth, 3);

// What a caller computes: forward and backward of a layer, softmax, an activation.
std::vector<float> work() {
  cpu::Workspace workspace;
  cpu::Context context;
  context.workspace = &workspace;
  const auto activation = cpu::Activation{.kind = cpu::ActivationKind::relu};
  const cpu::LinearSize size{kRows, kWidth, kWidth};
  std::vector<float> y(kRows * kWidth), s(y.size()), z(y.size()), dx(y.size());
  std::vector<float> dweight(kWidth * kWidth), dbias(kWidth);
  cpu::linear<float>(context, y.data(), nullptr, x.data(), weight.data(), bias.data(), size,
                     activation);
  cpu::linear_backward<float>(context, dx.data(), dweight.data(), dbias.data(), x.data(), x.data(),
                              weight.data(), y.data(), true, size, activation, false);
  cpu::softmax<float>(context, s.data(), y.data(), {kRows, kWidth, 1}, false);
  cpu::activation<float>(context, z.data(), x.data(), kRows * kWidth,
                         cpu::Activation{.kind = cpu::ActivationKind::gelu});
  for (const auto* part : {&s, &z, &dx, &dweight, &dbias}) {
    y.insert(y.end(), part->begin(), part->end());
  }
  return y;
}

}  // namespace

int main() {
  cpu::set_num_threads(4);
  const std::vector<float> expected = work();
  std::atomic<int> different = 0;
  std::vector<std::thread> callers;
  for (int i = 0; i < kCallers; ++i) {
    callers.emplace_back([&] {
      for (int round = 0; round < kRounds; ++round) {
        const std::vector<float> result = work();
        different += std::memcmp(result.data(), expected.data(), 4 * expected.size()) != 0;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  std::printf("ops: %d callers, %d calls differ\n", kCallers, different.load());
  return different == 0 ? 0 : 1;
}
