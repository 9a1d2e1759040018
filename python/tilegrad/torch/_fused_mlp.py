# SPDX-License-Identifier: MIT
"""A small multilayer perceptron as one differentiable operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

import tilegrad

from ._activations import option_values, options_of
from ._exchange import operand, operands, tensor
from ._library import autocast, define, differentiate, differentiate_once, refuse_forward_mode

_INPUTS = (
    "Tensor input, Tensor[] weights, Tensor[] biases, str activation, float[] options,"
    " str output_activation, float[] output_options"
)


def _arguments(
    input: torch.Tensor,
    weights: list[torch.Tensor],
    biases: list[torch.Tensor],
    activation: str,
    values: list[float],
    output_activation: str,
    output_values: list[float],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what tilegrad's functions take."""
    positional = (operand(input), operands(weights), operands(biases) if biases else None)
    return (*positional, activation, output_activation), {
        "activation_args": options_of(activation, values),
        "output_activation_args": options_of(output_activation, output_values),
    }


def _fused_mlp(*inputs: Any) -> torch.Tensor:
    args, options = _arguments(*inputs)
    return tensor(tilegrad.fused_mlp(*args, **options))


def _fused_mlp_backward(
    grad_output: torch.Tensor, input: torch.Tensor, *rest: Any
) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    *inputs, needs_input, needs_parameters = rest
    args, options = _arguments(input, *inputs)
    names = (("input",) if needs_input else ()) + (
        ("weights", "biases") if needs_parameters else ()
    )
    dx, dweights, dbiases = tilegrad.fused_mlp_backward(
        operand(grad_output), *args, **options, wrt=names
    )
    return (
        input.new_empty(0) if dx is None else tensor(dx),
        [tensor(g) for g in dweights or ()],
        [tensor(g) for g in dbiases or ()],
    )


def _fake(input: torch.Tensor, weights: list[torch.Tensor], *_: Any) -> torch.Tensor:
    return input.new_empty((*input.shape[:-1], weights[-1].shape[0]))


def _fake_backward(
    grad_output: torch.Tensor,
    input: torch.Tensor,
    weights: list[torch.Tensor],
    biases: list[torch.Tensor],
    *rest: Any,
) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    needs_input, needs_parameters = rest[-2:]
    return (
        input.new_empty(input.shape if needs_input else 0),
        [w.new_empty(w.shape) for w in weights] if needs_parameters else [],
        [b.new_empty(b.shape) for b in biases] if needs_parameters else [],
    )


_forward = define(f"fused_mlp({_INPUTS}) -> Tensor", _fused_mlp, _fake)
_backward = define(
    f"fused_mlp_backward(Tensor grad_output, {_INPUTS}, bool needs_input, bool needs_parameters)"
    " -> (Tensor, Tensor[], Tensor[])",
    _fused_mlp_backward,
    _fake_backward,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    input, weights, biases = inputs[:3]
    ctx.layers, ctx.options = len(weights), inputs[3:]
    ctx.save_for_backward(input, *weights, *biases)


def _differentiate(
    ctx: Any, saved: tuple[torch.Tensor, ...], grad_output: torch.Tensor
) -> tuple[Any, ...]:
    input, *parameters = saved
    weights, biases = parameters[: ctx.layers], parameters[ctx.layers :]
    needs_input, *needs = ctx.needs_input_grad[:3]
    needs_parameters = any(any(n) if isinstance(n, (list, tuple)) else n for n in needs)
    dx, dweights, dbiases = _backward(
        grad_output, input, weights, biases, *ctx.options, needs_input, needs_parameters
    )
    nothing = [None] * ctx.layers
    return (
        dx if needs_input else None,
        list(dweights) if needs_parameters else nothing,
        (list(dbiases) if needs_parameters else nothing) if biases else [],
        *([] if option == [] else None for option in ctx.options),  # as torch wants it
    )


differentiate(_forward, _setup, _differentiate)
differentiate_once(_backward)


def fused_mlp(
    input: torch.Tensor,
    weights: Sequence[torch.Tensor],
    biases: Sequence[torch.Tensor] | None = None,
    activation: str | None = "relu",
    output_activation: str | None = None,
    *,
    activation_args: Mapping[str, float] | None = None,
    output_activation_args: Mapping[str, float] | None = None,
) -> torch.Tensor:
    """Apply dense layers one after another as one op, `tilegrad.fused_mlp`, differentiably.

    The backward pass computes the forward pass again: nothing but the operands is kept.

    Args:
        input: `(..., in_features)`, float32, float64 or bfloat16.
        weights: 1 to 16 tensors, each `(out_features, in_features)` of its layer.
        biases: As many tensors `(out_features,)`, or None.
        activation: That of every layer but the last one, a name that `tilegrad.linear` knows.
        output_activation: That of the last layer.
        activation_args: Options of the activation by name.
        output_activation_args: Options of the output activation by name.

    Returns:
        y, `(..., out_features)` of the last layer.

    Raises:
        TypeError: If dtypes or devices differ or are not supported.
        ValueError: If sizes do not fit, or an activation or an option is unknown.

    Example:
        >>> x, last = torch.tensor([[1.0, 2.0]]), torch.ones(1, 2)
        >>> fused_mlp(x, [torch.tensor([[1.0, 1.0], [1.0, -1.0]]), last])
        tensor([[3.]])
    """
    refuse_forward_mode("fused_mlp", input, *weights, *(biases or ()))
    first, last = activation or "identity", output_activation or "identity"
    cast = autocast(input, *weights, *(biases or ()))
    result: torch.Tensor = _forward(
        cast[0],
        cast[1 : 1 + len(weights)],
        cast[1 + len(weights) :],
        first,
        option_values(first, activation_args),
        last,
        option_values(last, output_activation_args),
    )
    return result
