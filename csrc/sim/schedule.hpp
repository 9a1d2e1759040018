// SPDX-License-Identifier: MIT
// Which thread, block or asynchronous operation comes next (launch.hpp's set_schedule).
#pragma once

#include <cstdint>
#include <string>

namespace tilegrad::simulator {

enum class Order : uint8_t { kForward, kReverse, kRandom };
enum class AsyncMoment : uint8_t { kEager, kLazy, kRandom };

struct Schedule {
  Order order = Order::kForward;
  AsyncMoment moment = AsyncMoment::kEager;
  uint64_t seed = 0;
};

Schedule parse_schedule(const std::string& text);  // std::invalid_argument
Schedule current_schedule();

// splitmix64: reproducible everywhere.
struct Random {
  uint64_t state = 0;
  uint64_t next() {
    uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
  }
  // 0 .. n-1, n < 2^32.
  uint64_t below(uint64_t n) { return (next() >> 32) * n >> 32; }
};

}  // namespace tilegrad::simulator
