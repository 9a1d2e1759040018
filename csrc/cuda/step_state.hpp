// SPDX-License-Identifier: MIT
#pragma once

#include "../context.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

// *state = value in device memory, ordered on the context's stream. The value travels as a kernel
// argument, so nothing on the host has to outlive the call.
void store_step_state(Context& context, StepState* state, const StepState& value);

}  // namespace tilegrad::TILEGRAD_BACKEND
