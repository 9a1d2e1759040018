# SPDX-License-Identifier: MIT
"""The dense layer as differentiable operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import tilegrad

from ._activations import option_values, options_of, uses_output
from ._exchange import operand, tensor
from ._library import autocast, define, differentiate, differentiate_once, refuse_forward_mode

_REST = "Tensor weight, Tensor? bias, str activation, float[] options"
_INPUTS = f"Tensor input, {_REST}"
_WANTED = ("input", "weight", "bias")


def _arguments(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    activation: str,
    values: list[float],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what tilegrad's functions take."""
    return (
        (operand(input), operand(weight), operand(bias), activation),
        {"activation_args": options_of(activation, values)},
    )


def _linear(*inputs: Any) -> torch.Tensor:
    args, options = _arguments(*inputs)
    return tensor(tilegrad.linear(*args, **options))


def _linear_and_preactivation(*inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    args, options = _arguments(*inputs)
    y, z = tilegrad.linear(*args, **options, save_preactivation=True)
    return tensor(y), tensor(z)


def _linear_backward(
    grad_output: torch.Tensor, input: torch.Tensor | None, weight: torch.Tensor, *rest: Any
) -> tuple[torch.Tensor, ...]:
    bias, activation, values, saved, wanted = rest
    if input is None:  # it was not kept, and is not read
        input = _input_like(grad_output, weight)
    args, options = _arguments(input, weight, bias, activation, values)
    options["output" if uses_output(activation, values) else "preactivation"] = operand(saved)
    options["wrt"] = tuple(n for n, asked in zip(_WANTED, wanted, strict=True) if asked)
    gradients = tilegrad.linear_backward(operand(grad_output), *args, **options)
    return tuple(input.new_empty(0) if g is None else tensor(g) for g in gradients)


def _input_like(grad_output: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return grad_output.new_empty((*grad_output.shape[:-1], weight.shape[1]))


def _fake(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *_: Any
) -> torch.Tensor:
    return input.new_empty((*input.shape[:-1], weight.shape[0]))


def _fake_pair(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return _fake(*args), _fake(*args)


def _fake_backward(
    grad_output: torch.Tensor,
    input: torch.Tensor | None,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *rest: Any,
) -> tuple[torch.Tensor, ...]:
    wanted = rest[-1]
    input = _input_like(grad_output, weight) if input is None else input
    return tuple(
        input.new_empty(like.shape if like is not None and asked else 0)
        for like, asked in zip((input, weight, bias), wanted, strict=True)
    )


_plain = define(f"linear({_INPUTS}) -> Tensor", _linear, _fake)
_saving = define(
    f"linear_and_preactivation({_INPUTS}) -> (Tensor, Tensor)",
    _linear_and_preactivation,
    _fake_pair,
)
_backward = define(
    f"linear_backward(Tensor grad_output, Tensor? input, {_REST}, Tensor? saved, bool[3] wanted)"
    " -> (Tensor, Tensor, Tensor)",
    _linear_backward,
    _fake_backward,
)


def _keep(ctx: Any, inputs: tuple[Any, ...], saved: torch.Tensor | None) -> None:
    input, weight, bias, ctx.activation, ctx.values = inputs
    # Only dweight reads the input: a frozen layer does not keep it.
    ctx.save_for_backward(input if ctx.needs_input_grad[1] else None, weight, bias, saved)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    activation, values = inputs[3:]
    keeps = activation != "identity" and uses_output(activation, values)
    _keep(ctx, inputs, output if keeps else None)


def _setup_saving(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    _keep(ctx, inputs, output[0] if uses_output(*inputs[3:]) else output[1])


def _differentiate(
    ctx: Any, kept: tuple[Any, ...], grad_output: torch.Tensor | None, *_: Any
) -> tuple[Any, ...]:
    if grad_output is None:
        return (None,) * 5
    input, weight, bias, saved = kept
    wanted = list(ctx.needs_input_grad[:3])
    gradients = _backward(
        grad_output, input, weight, bias, ctx.activation, ctx.values, saved, wanted
    )
    return (
        *(g if asked else None for g, asked in zip(gradients, wanted, strict=True)),
        None,
        None,
    )


differentiate(_plain, _setup, _differentiate)
differentiate(_saving, _setup_saving, _differentiate)
differentiate_once(_backward)


def linear(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str | None = None,
    *,
    activation_args: Mapping[str, float] | None = None,
) -> torch.Tensor:
    """Apply a dense layer with its activation fused, `tilegrad.linear`, differentiably.

    Math: y = f(input weight^T + bias)

    Args:
        input: `(..., in_features)`, float32, float64 or bfloat16.
        weight: `(out_features, in_features)`.
        bias: `(out_features,)` or None.
        activation: None or a name that `tilegrad.linear` knows.
        activation_args: Its options by name.

    Returns:
        y, `(..., out_features)`, a new contiguous tensor.

    Raises:
        TypeError: If dtypes or devices differ or are not supported.
        ValueError: If sizes do not fit, or the activation or an option is unknown.

    Example:
        >>> x, w = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0], [1.0, -1.0]])
        >>> linear(x, w, activation="relu")
        tensor([[3., 0.]])

    Source: torch.nn.functional.linear
    """
    refuse_forward_mode("linear", input, weight, bias)
    name = activation or "identity"
    values = option_values(name, activation_args)
    input, weight, bias = autocast(input, weight, bias)  # type: ignore[assignment]
    needs_z = not uses_output(name, values) and torch.is_grad_enabled()
    if needs_z and any(t is not None and t.requires_grad for t in (input, weight, bias)):
        y: torch.Tensor = _saving(input, weight, bias, name, values)[0]
        return y
    y = _plain(input, weight, bias, name, values)
    return y
