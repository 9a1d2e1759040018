// SPDX-License-Identifier: MIT
#include "architecture.hpp"

#include <cctype>

#include "../../check.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

bool entry_runs_on(std::string_view entry, int device) {
  int version = 0;
  size_t at = 0;
  while (at < entry.size() && std::isdigit(static_cast<unsigned char>(entry[at])) != 0) {
    version = 10 * version + (entry[at++] - '0');
  }
  const bool one_device = at < entry.size() && (entry[at] == 'a' || entry[at] == 'f');
  if (one_device) ++at;
  const std::string_view kind = entry.substr(at);
  const bool real = kind != "-virtual", ptx = kind != "-real";
  if (one_device) return version == device;
  return (real && version / 10 == device / 10 && version <= device) || (ptx && version <= device);
}

}  // namespace

bool has_code_for(std::string_view built, int compute_capability) {
  while (!built.empty()) {
    const size_t end = built.find_first_of(",;");
    if (entry_runs_on(built.substr(0, end), compute_capability)) return true;
    if (end == std::string_view::npos) break;
    built.remove_prefix(end + 1);
  }
  return false;
}

std::string missing_code(std::string_view built, int compute_capability, std::string_view device) {
  if (has_code_for(built, compute_capability)) return {};
  const int cc = compute_capability;
  return format(
      "cuda: this build has no code for {} (compute capability {}.{}); it has {}. Rebuild with: "
      "pip "
      "install . --config-settings=cmake.define.TILEGRAD_CUDA_ARCHITECTURES={}{}-real",
      device, cc / 10, cc % 10, built, cc, cc == 90 ? "a" : "");
}

std::string_view built_architectures() { return TILEGRAD_CUDA_ARCHITECTURES; }

}  // namespace tilegrad::TILEGRAD_BACKEND
