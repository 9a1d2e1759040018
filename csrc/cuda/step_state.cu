// SPDX-License-Identifier: MIT
#include "step_state.hpp"

#include "launch.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

__global__ void store_step_state_kernel(StepState* state, StepState value) {
  grid_dependency_wait();
  *state = value;
}

}  // namespace

void store_step_state(Context& context, StepState* state, const StepState& value) {
  launch_next(store_step_state_kernel, dim3(1), dim3(1), 0, context, state, value);
}

}  // namespace tilegrad::TILEGRAD_BACKEND
