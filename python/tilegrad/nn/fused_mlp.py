# SPDX-License-Identifier: MIT
"""A small network of dense layers that runs as one op."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from tilegrad.backends import of
from tilegrad.nn.container import Sequential
from tilegrad.nn.linear import Linear, _size
from tilegrad.nn.module import Array, RecordedBackward
from tilegrad.nn.parameter import Parameter, wide_zeros
from tilegrad.ops import fused_mlp, fused_mlp_backward

if TYPE_CHECKING:
    from tilegrad._recorder import Recorder


_MOST_LAYERS = 16
_OF_THE_LAYERS = ("activation", "output_activation", "activation_args", "output_activation_args")
_Function: TypeAlias = "tuple[str | None, dict[str, float] | None]"


@dataclass(frozen=True)
class _Network:
    """The parameters and activations of a network that one op can run."""

    weights: list[Parameter]
    biases: list[Parameter | None]
    hidden: _Function
    output: _Function

    def parameters(self) -> list[Parameter]:
        return [p for p in (*self.weights, *self.biases) if p is not None]

    def operands(self) -> tuple[Any, ...]:
        """Return what plans take after the input."""
        return (
            [p.data for p in self.weights],
            [None if p is None else p.data for p in self.biases],
            self.hidden[0],
            self.output[0],
            self.hidden[1],
            self.output[1],
        )

    def options(self) -> dict[str, Any]:
        return {"activation_args": self.hidden[1], "output_activation_args": self.output[1]}

    def trains_on_chip(self, input: Array) -> bool:
        """Say whether the device keeps the backward pass on chip, from the input alone."""
        result: bool = of(input).fused_mlp_trains_on_chip(input, *self.operands())
        return result


class FusedMLP(Sequential):
    """Apply a small multilayer perceptron as one op.

    It is a ``Sequential`` of ``Linear`` layers, with their names, initial values and results, but
    one op runs them all (``tilegrad.fused_mlp``). In bfloat16, with up to 128 features in every
    layer, a Hopper GPU keeps the whole network on chip; elsewhere it runs layer by layer. Where the
    backward pass stays on chip too (up to 64 features, 2 to 8 layers) the forward pass is computed
    again there and nothing is kept of it; elsewhere training is that of the ``Sequential``, which
    keeps what the layers hand on.

    The layers say what is computed, now and whenever they are changed. Once they are no longer a
    chain of ``Linear`` with one activation for all but the last one, or share a parameter, the
    module runs them as a ``Sequential`` does.

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
        dtype: float32, float64 or bfloat16, as for ``Linear``; of float16 are the functions alone.

    Raises:
        AttributeError: An activation is set on the module instead of a layer.
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
        if count > _MOST_LAYERS:
            raise ValueError(f"FusedMLP: layers must be at most {_MOST_LAYERS}; got {count}")
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

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OF_THE_LAYERS:
            raise AttributeError(
                f"FusedMLP: {name} belongs to the layers; set that of each layer, such as "
                "model[0].activation"
            )
        super().__setattr__(name, value)

    def _network(self) -> _Network | None:
        """Return the network as one op takes it, or None where the layers are not such a one."""
        layers: list[Any] = list(self._modules.values())
        if not 1 <= len(layers) <= _MOST_LAYERS:
            return None
        if not all(type(m) is Linear and "forward" not in m.__dict__ for m in layers):
            return None
        functions = [(m.activation, m.activation_args) for m in layers]
        parameters = [p for m in layers for p in (m.weight, m.bias) if p is not None]
        if any(f != functions[0] for f in functions[1:-1]) or len({*parameters}) < len(parameters):
            return None
        return _Network(
            [m.weight for m in layers], [m.bias for m in layers], functions[0], functions[-1]
        )

    def forward(self, input: Array) -> Array:
        """Return y (..., out_features) of ``input`` (..., in_features)."""
        network = self._network()
        if network is None or (self.training and not network.trains_on_chip(input)):
            self._save()  # the layers keep what there is to keep
            return super().forward(input)
        weights, biases, *options = network.operands()
        output = fused_mlp(input, weights, biases, *options[:2], **network.options())
        self._save(input, network)
        return output

    def backward(self, grad_output: Array, input_grad: bool = True) -> Array | None:
        """Add to the gradients of weights and biases; return dx."""
        saved = self._take_saved()
        if not saved:
            return super().backward(grad_output, input_grad)
        input, network = saved
        wanted = [p for p in network.parameters() if p.requires_grad]
        if not wanted and not input_grad:
            return None
        accumulate = any(p.grad is not None for p in wanted)
        if accumulate:  # one flag serves all: a gradient that is not there yet starts from zero
            for parameter in wanted:
                if parameter.grad is None:
                    parameter.grad_buffer().fill(0)
        dweights, dbiases = self._gradients(network.weights), self._gradients(network.biases)
        weights, biases, *options = network.operands()
        dx, _, _ = fused_mlp_backward(
            grad_output,
            input,
            weights,
            biases,
            *options[:2],
            **network.options(),
            wrt=(("input",) if input_grad else ()) + (("weights", "biases") if wanted else ()),
            accumulate=accumulate,
            out=(None, dweights, dbiases) if wanted else None,
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
        network = self._network()
        if network is None:
            return super()._record(recorder, x)
        weights, biases, *options = network.operands()
        if x.ndim < 1 or x.shape[-1] != weights[0].shape[1]:
            raise ValueError(
                f"fused_mlp: inner sizes differ; weights[0] is {weights[0].shape} (out_features, "
                f"in_features), input is {x.shape}"
            )
        if recorder.training and not network.trains_on_chip(x):
            return super()._record(recorder, x)
        plan = recorder.plan
        y = recorder.empty((*x.shape[:-1], weights[-1].shape[0]), weights[-1].dtype)
        plan.fused_mlp(y, x, weights, biases, *options)

        def backward(dy: Array, input_grad: bool) -> Array | None:
            dx = recorder.empty(x.shape, x.dtype) if input_grad else None
            dw, db = (
                [recorder.gradient(p) for p in reversed(group)][::-1]
                for group in (network.weights, network.biases)
            )
            if dx is not None or any(g is not None for g in (*dw, *db)):
                plan.fused_mlp_backward(dx, dw, db, dy, x, weights, biases, *options)
            return dx

        return y, backward
