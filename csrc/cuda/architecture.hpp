// SPDX-License-Identifier: MIT
// Which of a build's code a device runs. CUDA's own answer to "none" ("no kernel image is
// available") names neither the device nor what to do; and a device newer than all machine code
// runs PTX of an older architecture, without the instructions that its own capability promises.
#pragma once

#include <algorithm>
#include <string_view>

namespace tilegrad::TILEGRAD_BACKEND {

// `built` is CMake's list, such as "80-real,90a-real,120-virtual". Machine code ("real") runs on
// devices of its major version from its minor version on; with a letter on that one alone; PTX
// ("virtual") on every later device. Without a suffix an entry is both. Returns 80 for code of 8.0,
// 0 where there is none: the newest machine code that runs, else the newest PTX.
constexpr int code_for(std::string_view built, int compute_capability) {
  int best_real = 0, best_ptx = 0;
  while (!built.empty()) {
    const size_t end = std::min(built.find_first_of(",;"), built.size());
    std::string_view entry = built.substr(0, end);
    built.remove_prefix(std::min(end + 1, built.size()));
    int version = 0;
    while (!entry.empty() && entry.front() >= '0' && entry.front() <= '9') {
      version = 10 * version + (entry.front() - '0');
      entry.remove_prefix(1);
    }
    const bool one_device = entry.starts_with('a') || entry.starts_with('f');
    if (one_device) entry.remove_prefix(1);
    if (one_device ? version != compute_capability : version > compute_capability) continue;
    const bool same_major = version / 10 == compute_capability / 10;
    if (entry != "-virtual" && same_major) best_real = std::max(best_real, version);
    if (entry != "-real") best_ptx = std::max(best_ptx, version);
  }
  return best_real > 0 ? best_real : best_ptx;
}

}  // namespace tilegrad::TILEGRAD_BACKEND
