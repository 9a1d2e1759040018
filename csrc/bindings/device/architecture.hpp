// SPDX-License-Identifier: MIT
// Whether a build has code for a device: asked before the first launch, because CUDA's own answer
// ("no kernel image is available") names neither the device nor what to do.
#pragma once

#include <string>
#include <string_view>

namespace tilegrad::TILEGRAD_BACKEND {

// `built` is CMake's list, such as "80-real,90a-real,120-virtual". Machine code ("real") runs on
// devices of its major version from its minor version on; with a letter on that one alone; PTX
// ("virtual") on every later device. Without a suffix an entry is both.
bool has_code_for(std::string_view built, int compute_capability);

// Empty if it has; else the error: device, list, what to rebuild with.
std::string missing_code(std::string_view built, int compute_capability, std::string_view device);

// What this build was compiled for.
std::string_view built_architectures();

}  // namespace tilegrad::TILEGRAD_BACKEND
