# SPDX-License-Identifier: MIT
"""The fully connected layer."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike

from tilegrad import _cpu
from tilegrad.nn._init import uniform
from tilegrad.nn.module import Array, Module, RecordedBackward
from tilegrad.nn.parameter import Parameter, dtype_of
from tilegrad.ops import linear, linear_backward

if TYPE_CHECKING:
    from tilegrad._recorder import Recorder


def _size(name: str, value: int, layer: str = "Linear") -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{layer}: {name} must be an integer; got {value!r}")
    size = operator.index(value)
    if size < 1:
        raise ValueError(f"{layer}: {name} must be at least 1; got {size}")
    return size


class Linear(Module):
    """Apply a linear map, a bias and an activation in one kernel.

    Math: y = f(x W^T + b); dz = dy f'(z), dx = dz W, dW = dz^T x, db = sum over rows of dz.

    ``weight`` (out_features, in_features) and ``bias`` (out_features,) start from
    U(-1/sqrt(in_features), 1/sqrt(in_features)), as torch.nn.Linear, drawn from the stream of
    ``tilegrad.manual_seed``.

    Args:
        in_features: Size of each input sample.
        out_features: Size of each output sample.
        bias: Whether to add b.
        activation: Name of f, such as "relu" or "gelu_tanh"; None is the identity.
        activation_args: Options of f, such as ``{"negative_slope": 0.1}``.
        dtype: float32, float64 or bfloat16, by name or as ``ml_dtypes.bfloat16``. Of bfloat16
            are the weights, rounded from those that float32 would start from, the input and the
            output; the gradients of the weights are float32.

    Raises:
        TypeError: Another dtype, such as one of torch's.
        ValueError: A size is below 1, or the activation is unknown.
        ImportError: bfloat16 without the package ml_dtypes.

    Example:
        >>> layer = Linear(2, 1, activation="relu")
        >>> layer.weight.data = np.array([[1, 2]], np.float32)
        >>> layer.bias.data = np.array([-4], np.float32)
        >>> layer(np.array([[1, 1], [1, 3]], np.float32))
        array([[0.],
               [3.]], dtype=float32)

    Source: torch.nn.Linear.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation: str | None = None,
        *,
        activation_args: Mapping[str, float] | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        self.in_features = _size("in_features", in_features)
        self.out_features = _size("out_features", out_features)
        self.activation = activation
        self.activation_args = dict(activation_args) if activation_args is not None else None
        self._uses_output()  # an unknown activation is refused here
        bound = 1 / math.sqrt(self.in_features)
        shape = (self.out_features, self.in_features)
        self.weight = Parameter(uniform(shape, -bound, bound, dtype))
        self.bias: Parameter | None = None
        if bias:
            self.bias = Parameter(uniform(shape[:1], -bound, bound, dtype))

    def _uses_output(self) -> bool:
        """Say whether f' can be taken from y; else the preactivation is kept as well."""
        result: bool = _cpu.activation_uses_output(self.activation, self.activation_args)
        return result

    def forward(self, input: Array) -> Array:
        """Return y (..., out_features) of ``input`` (..., in_features)."""
        weight, bias = self.weight.data, None if self.bias is None else self.bias.data
        uses_output = self._uses_output()
        if uses_output or not self.training:
            y: Array = linear(
                input, weight, bias, self.activation, activation_args=self.activation_args
            )
            self._save(input, y, uses_output)
            return y
        y, z = linear(
            input,
            weight,
            bias,
            self.activation,
            activation_args=self.activation_args,
            save_preactivation=True,
        )
        self._save(input, z, uses_output)
        return y

    def backward(self, grad_output: Array, input_grad: bool = True) -> Array | None:
        """Add dW and db to the gradients; return dx."""
        input, saved, uses_output = self._take_saved()
        wanted = {
            name: parameter
            for name, parameter in (("weight", self.weight), ("bias", self.bias))
            if parameter is not None and parameter.requires_grad
        }
        wrt = (("input",) if input_grad else ()) + tuple(wanted)
        if not wrt:
            return None
        accumulate = any(parameter.grad is not None for parameter in wanted.values())
        if accumulate:  # one flag serves both: a gradient that is not there yet starts from zero
            for parameter in wanted.values():
                if parameter.grad is None:
                    parameter.grad_buffer().fill(0)
        buffers = {name: parameter.grad_buffer() for name, parameter in wanted.items()}
        dx, _, _ = linear_backward(
            grad_output,
            input,
            self.weight.data,
            None if self.bias is None else self.bias.data,
            self.activation,
            activation_args=self.activation_args,
            output=saved if uses_output else None,
            preactivation=None if uses_output else saved,
            wrt=wrt,
            accumulate=accumulate,
            out=(None, buffers.get("weight"), buffers.get("bias")),
        )
        for parameter in wanted.values():
            parameter.mark_grad()
        return dx

    def _record(self, recorder: Recorder, x: Array) -> tuple[Array, RecordedBackward]:
        if x.ndim < 1 or x.shape[-1] != self.in_features:
            raise ValueError(
                f"linear: inner sizes differ; input is {x.shape}, weight is {self.weight.shape} "
                "(out_features, in_features)"
            )
        plan, options = recorder.plan, (self.activation, self.activation_args)
        bias = None if self.bias is None else self.bias.data
        y = recorder.empty((*x.shape[:-1], self.out_features), self.weight.dtype)
        uses_output = self._uses_output()
        keeps_z = recorder.training and not uses_output
        z = recorder.empty(y.shape, y.dtype) if keeps_z else None
        plan.linear(y, z, x, self.weight.data, bias, *options)

        def backward(dy: Array, input_grad: bool) -> Array | None:
            dx = recorder.empty(x.shape, x.dtype) if input_grad else None
            dw, db = recorder.gradient(self.weight), recorder.gradient(self.bias)
            if dx is not None or dw is not None or db is not None:
                saved = y if z is None else z
                weight = self.weight.data
                plan.linear_backward(dx, dw, db, dy, x, weight, saved, uses_output, *options)
            return dx

        return y, backward

    def extra_repr(self) -> str:
        """Return the arguments to show in ``repr``."""
        parts = [f"{self.in_features}, {self.out_features}"]
        if self.bias is None:
            parts.append("bias=False")
        if self.activation is not None:
            parts.append(f"activation={self.activation!r}")
        if (dtype := dtype_of(self.weight.data)) != "float32":
            parts.append(f"dtype={dtype!r}")
        return ", ".join(parts)
