# SPDX-License-Identifier: MIT
"""The parametric relu, an activation that is trained."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike

from tilegrad._makers import full
from tilegrad.backends import of
from tilegrad.nn.module import Array, Module, RecordedBackward
from tilegrad.nn.parameter import Parameter
from tilegrad.ops import prelu

if TYPE_CHECKING:
    from tilegrad._recorder import Recorder


class PReLU(Module):
    """Apply f(x) = x for x > 0, else w x with a learned slope w.

    Math: y = x if x > 0 else w[c] x; dw[c] = sum of x dy over the x <= 0 of channel c.

    Args:
        num_parameters: 1 for one slope, or the number of channels, the input's second axis.
        init: The slopes before training.
        dtype: float32, float64 or bfloat16.

    Raises:
        TypeError: num_parameters is no integer.
        ValueError: num_parameters is less than 1.

    Source: He, Zhang, Ren, Sun 2015; torch.nn.PReLU.
    """

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, dtype: DTypeLike = np.float32
    ) -> None:
        super().__init__()
        if isinstance(num_parameters, bool) or not hasattr(num_parameters, "__index__"):
            raise TypeError(f"PReLU: num_parameters must be an integer; got {num_parameters!r}")
        self.num_parameters = operator.index(num_parameters)
        if self.num_parameters < 1:
            raise ValueError(f"PReLU: num_parameters must be at least 1; got {num_parameters}")
        self.init = init
        self.weight = Parameter(full(self.num_parameters, init, dtype))

    def forward(self, input: Array) -> Array:
        """Return f(input), elementwise."""
        output = prelu(input, self.weight.data)
        self._save(input)
        return output

    def backward(self, grad_output: Array, input_grad: bool = True) -> Array | None:
        """Add dw to the gradient; return dx."""
        (input,) = self._take_saved()
        trained = self.weight.requires_grad
        wrt = (("input",) if input_grad else ()) + (("weight",) if trained else ())
        if not wrt:
            return None
        out = ((None,) if input_grad else ()) + ((self.weight.grad_buffer(),) if trained else ())
        accumulate = self.weight.grad is not None
        gradients = of(input).prelu_backward(
            grad_output, input, self.weight.data, wrt, accumulate, out
        )
        if trained:
            self.weight.mark_grad()
        return gradients[0] if input_grad else None

    def _record(self, recorder: Recorder, x: Array) -> tuple[Array, RecordedBackward]:
        channels = x.shape[1] if x.ndim > 1 else 1
        if self.num_parameters not in (1, channels):
            raise ValueError(
                f"prelu: weight must have 1 element or {channels}, one for each channel of input "
                f"{x.shape}; got shape ({self.num_parameters},)"
            )
        plan = recorder.plan
        y = recorder.empty(x.shape, x.dtype)
        plan.prelu(y, x, self.weight.data)

        def backward(dy: Array, input_grad: bool) -> Array | None:
            dx, dw = dy if input_grad else None, recorder.gradient(self.weight)
            if dx is not None or dw is not None:
                plan.prelu_backward(dx, dw, dy, x, self.weight.data)
            return dx

        return y, backward

    def extra_repr(self) -> str:
        """Return the arguments to show in ``repr``."""
        return f"num_parameters={self.num_parameters}"
