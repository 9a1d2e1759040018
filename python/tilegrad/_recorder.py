# SPDX-License-Identifier: MIT
"""Recorder: a plan in the making."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tilegrad import backends
from tilegrad._makers import asarray, empty
from tilegrad.nn.parameter import Parameter

Array: TypeAlias = NDArray[Any]


class Recorder:
    """What modules record into: the native plan and the buffers that belong to it.

    Args:
        place: The device.
        training: Record the passes of training, not the forward pass of eval mode alone.
    """

    def __init__(self, place: int | None = None, *, training: bool = True) -> None:
        module = backends.at(place)
        self.device = backends.place_name(place)
        self.plan = module.Plan()
        self.state = module.StepState()  # seed and offset of the random stream at the step's start
        self.training = training
        self.bytes = 0  # of the buffers made here
        self.counters = 0  # random counters that a step consumes
        self.gradients: list[Parameter] = []  # in the order in which backward completes them

    def empty(self, shape: Sequence[int], dtype: Any) -> Array:
        """Return a new buffer; the plan keeps it alive once it is used in a call."""
        buffer: Array = empty(tuple(shape), dtype, device=self.device)
        self.bytes += buffer.nbytes
        return buffer

    def constant(self, values: Array) -> Array:
        """Return values that never change, C-contiguous on the plan's device."""
        if isinstance(values, np.ndarray):
            values = np.ascontiguousarray(values)
        result: Array = asarray(values, device=self.device)
        return result

    def take_random(self, words: int) -> int:
        """Return the counter, from the start of the step, of the next so many random words."""
        offset = self.counters
        self.counters += -(-words // 4)
        return offset

    def gradient(self, parameter: Parameter | None) -> Array | None:
        """Return the gradient's buffer, or None where no gradient is wanted."""
        if parameter is None or not parameter.requires_grad:
            return None
        if any(known is parameter for known in self.gradients):
            raise RuntimeError("TrainStep: a parameter is used by two modules; that has no plan")
        if parameter.grad_ready is not None:
            raise RuntimeError(
                "TrainStep: a parameter has a grad_ready hook, which the long form alone calls; "
                "that has no plan"
            )
        self.gradients.append(parameter)
        return parameter.grad_buffer()
