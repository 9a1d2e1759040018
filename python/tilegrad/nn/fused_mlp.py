# SPDX-License-Identifier: MIT
"""A small network of dense layers that runs as one op."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from tilegrad.nn.container import Sequential
from tilegrad.nn.linear import Linear, _size
from tilegrad.nn.module import Array, RecordedBackward
from tilegrad.nn.parameter import Parameter, wide_zeros
from tilegrad.ops import fused_mlp, fused_mlp_backward

if TYPE_CHECKING:
    from tilegrad._recorder import Recorder


class FusedMLP(Sequential):
    """Apply a small multilayer perceptron as one op, forward and backward.

    It is a ``Sequential`` of ``Linear`` layers, with their names, initial values and results, but
    one op runs them all (``tilegrad.fused_mlp``), and its backward pass computes the forward pass
    again instead of keeping what layers hand on. In bfloat16, with up to 128 features in every
    layer, a Hopper GPU keeps the whole network on chip; elsewhere it runs layer by layer.

    Math: a_0 = x, a_{l+1} = f_l(a_l W_l^T + b_l), y = a_layers.

    Args:
        in_features: Size of each input sample.
        hidden_features: Size of every layer but the last one.
        out_features: Size of each output sample.
        layers: Number of linear layers, 1 to 16.
        activation: Name of f of every layer but the last one; None is the identity.
        output_activation: Name of f of the last layer.
        bias: Whether to add b.
        activation_args: Options of ``activation``, such as ``{"negative_slope": 0.1}``.
        output_activation_args: Options of ``output_activation``.
        dtype: float32, float64 or bfloat16, as for ``Linear``.

    Raises:
        TypeError: A size is no integer, or another dtype.
        ValueError: A size is out of range, or an activation is unknown.
        ImportError: bfloat16 without the package ml_dtypes.

    Example:
        >>> from tilegrad import nn
        >>> model = nn.FusedMLP(3, 64, 1, layers=4)
        >>> [(name, p.shape) for name, p in model.named_parameters()][-2:]
        [('3.weight', (1, 64)), ('3.bias', (1,))]
        >>> hidden = [nn.Linear(3 if i == 0 else 64, 64, activation="relu") for i in range(3)]
        >>> nn.Sequential(*hidden, nn.Linear(64, 1)).load_state_dict(model.state_dict())

    Source: Mueller et al., Real-time Neural Radiance Caching for Path Tracing, 2021, section 4.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        layers: int,
        activation: str | None = "relu",
        output_activation: str | None = None,
        bias: bool = True,
        *,
        activation_args: Mapping[str, float] | None = None,
        output_activation_args: Mapping[str, float] | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        count = _size("layers", layers, "FusedMLP")
        if count > 16:
            raise ValueError(f"FusedMLP: layers must be at most 16; got {count}")
        inner = _size("hidden_features", hidden_features, "FusedMLP")
        sizes = [
            _size("in_features", in_features, "FusedMLP"),
            *[inner] * (count - 1),
            _size("out_features", out_features, "FusedMLP"),
        ]
        options: list[Any] = [(activation, activation_args)] * (count - 1)
        options.append((output_activation, output_activation_args))
        super().__init__(
            *(
                Linear(sizes[i], sizes[i + 1], bias, name, activation_args=args, dtype=dtype)
                for i, (name, args) in enumerate(options)
            )
        )
        self.activation, self.output_activation = activation, output_activation
        self.activation_args = None if activation_args is None else dict(activation_args)
        self.output_activation_args = (
            None if output_activation_args is None else dict(output_activation_args)
        )

    def _parameters_by_layer(self) -> tuple[list[Parameter], list[Parameter | None]]:
        layers: list[Any] = list(self._modules.values())
        return [layer.weight for layer in layers], [layer.bias for layer in layers]

    def _operands(self) -> tuple[Any, ...]:
        """Return what ops and plans take of the network: weights, biases and activations."""
        weights, biases = self._parameters_by_layer()
        return (
            [p.data for p in weights],
            [None if p is None else p.data for p in biases],
            self.activation,
            self.output_activation,
        )

    def _options(self) -> dict[str, Any]:
        return {
            "activation_args": self.activation_args,
            "output_activation_args": self.output_activation_args,
        }

    def forward(self, input: Array) -> Array:
        """Return y (..., out_features) of ``input`` (..., in_features)."""
        output = fused_mlp(input, *self._operands(), **self._options())
        self._save(input)
        return output

    def backward(self, grad_output: Array, input_grad: bool = True) -> Array | None:
        """Add to the gradients of weights and biases; return dx."""
        (input,) = self._take_saved()
        weights, biases = self._parameters_by_layer()
        wanted = [p for p in (*weights, *biases) if p is not None and p.requires_grad]
        if not wanted and not input_grad:
            return None
        accumulate = any(p.grad is not None for p in wanted)
        if accumulate:  # one flag serves all: a gradient that is not there yet starts from zero
            for parameter in wanted:
                if parameter.grad is None:
                    parameter.grad_buffer().fill(0)
        dx, _, _ = fused_mlp_backward(
            grad_output,
            input,
            *self._operands(),
            **self._options(),
            wrt=(("input",) if input_grad else ()) + (("weights", "biases") if wanted else ()),
            accumulate=accumulate,
            out=(None, self._gradients(weights), self._gradients(biases)) if wanted else None,
        )
        for parameter in reversed(wanted):
            parameter.mark_grad()
        return dx

    @staticmethod
    def _gradients(parameters: list[Any]) -> list[Array | None]:
        # That of a frozen parameter is computed with the others and forgotten.
        return [
            None if p is None else p.grad_buffer() if p.requires_grad else wide_zeros(p.data)
            for p in parameters
        ]

    def _record(self, recorder: Recorder, x: Array) -> tuple[Array, RecordedBackward]:
        weights, biases, activation, output_activation = self._operands()
        if x.ndim < 1 or x.shape[-1] != weights[0].shape[1]:
            raise ValueError(
                f"fused_mlp: inner sizes differ; weights[0] is {weights[0].shape} (out_features, "
                f"in_features), input is {x.shape}"
            )
        plan = recorder.plan
        options = (
            activation,
            output_activation,
            self.activation_args,
            self.output_activation_args,
        )
        y = recorder.empty((*x.shape[:-1], weights[-1].shape[0]), weights[-1].dtype)
        plan.fused_mlp(y, x, weights, biases, *options)

        def backward(dy: Array, input_grad: bool) -> Array | None:
            dx = recorder.empty(x.shape, x.dtype) if input_grad else None
            dw, db = (
                [recorder.gradient(p) for p in reversed(group)][::-1]
                for group in self._parameters_by_layer()
            )
            if dx is not None or any(g is not None for g in (*dw, *db)):
                plan.fused_mlp_backward(dx, dw, db, dy, x, weights, biases, *options)
            return dx

        return y, backward
