// SPDX-License-Identifier: MIT
// Source: NVIDIA, CUDA C++ Programming Guide, Compute Capability 5.x: Global Memory, Shared Memory.
#include "trace_requests.hpp"

#include <algorithm>
#include <bit>

namespace tilegrad::simulator {
namespace {

constexpr uint64_t kSector = 32;
constexpr unsigned kBanks = 32;

struct Touched {
  uint64_t sector;
  uint32_t bytes;  // which of the 32, a bit each
};

}  // namespace

Cost count_sectors(const Request& request, unsigned bytes) {
  std::array<Touched, 64> touched;  // an access of 16 bytes reaches two sectors at most
  unsigned count = 0;
  bool ascending = true;
  const uint64_t wanted = (uint64_t{1} << bytes) - 1;
  for (uint32_t rest = request.mask; rest != 0; rest &= rest - 1) {
    const uint64_t a = request.address[static_cast<size_t>(std::countr_zero(rest))];
    const uint64_t bits = wanted << a % kSector;
    for (unsigned half = 0; half < 2; ++half) {
      const auto part = static_cast<uint32_t>(bits >> (32 * half));
      if (part == 0) continue;
      const uint64_t sector = a / kSector + half;
      if (count != 0 && touched[count - 1].sector == sector) {
        touched[count - 1].bytes |= part;
        continue;
      }
      if (count != 0 && touched[count - 1].sector > sector) ascending = false;
      touched[count++] = {sector, part};
    }
  }
  if (!ascending) {
    std::sort(touched.begin(), touched.begin() + count,
              [](const Touched& a, const Touched& b) { return a.sector < b.sector; });
  }
  uint32_t sectors = 0, distinct = 0;
  for (unsigned i = 0; i < count;) {
    uint32_t together = touched[i].bytes;
    const uint64_t sector = touched[i].sector;
    while (++i < count && touched[i].sector == sector) together |= touched[i].bytes;
    ++sectors;
    distinct += static_cast<uint32_t>(std::popcount(together));
  }
  return {sectors, static_cast<uint32_t>((distinct + kSector - 1) / kSector)};
}

Cost count_wavefronts(const Request& request, unsigned bytes) {
  const unsigned lanes = bytes <= 4 ? 32 : bytes <= 8 ? 16 : 8;  // served together
  Cost cost;
  std::array<std::array<uint64_t, kBanks>, kBanks> words;  // distinct ones of each bank
  std::array<uint8_t, kBanks> used;
  for (unsigned first = 0; first < 32; first += lanes) {
    const uint32_t part = (lanes == 32 ? ~0u : (1u << lanes) - 1) << first;
    used.fill(0);
    unsigned most = 0;
    for (uint32_t rest = request.mask & part; rest != 0; rest &= rest - 1) {
      const uint64_t a = request.address[static_cast<size_t>(std::countr_zero(rest))];
      for (uint64_t word = a / 4; word <= (a + bytes - 1) / 4; ++word) {
        auto& known = words[word % kBanks];
        uint8_t& n = used[word % kBanks];
        if (std::find(known.begin(), known.begin() + n, word) != known.begin() + n) continue;
        if (n < kBanks) known[n++] = word;
        most = std::max<unsigned>(most, n);
      }
    }
    cost.actual += most;
    cost.ideal += most != 0;
  }
  return cost;
}

}  // namespace tilegrad::simulator
