// SPDX-License-Identifier: MIT
#pragma once

namespace tilegrad::TILEGRAD_BACKEND {

// True with TILEGRAD_SYNC=1: every launch waits for its kernel to end, so nothing can be captured.
bool synchronous_launches();

}  // namespace tilegrad::TILEGRAD_BACKEND
