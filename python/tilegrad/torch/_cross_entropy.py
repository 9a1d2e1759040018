# SPDX-License-Identifier: MIT
"""Softmax cross-entropy as differentiable operators."""

from __future__ import annotations

from typing import Any

import torch

import tilegrad

from ._exchange import operand, tensor
from ._library import (
    autocast,
    define,
    differentiate,
    differentiate_once,
    no_second_derivatives,
    refuse_forward_mode,
)

_INPUTS = (
    "Tensor input, Tensor target, Tensor? weight, SymInt ignore_index, str reduction,"
    " float label_smoothing"
)


def _cross_entropy(
    input: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, *options: Any
) -> torch.Tensor:
    return tensor(
        tilegrad.cross_entropy(operand(input), operand(target), operand(weight), *options)
    )


def _value_and_grad(
    input: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, *options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    loss, gradient = tilegrad.cross_entropy_value_and_grad(
        operand(input), operand(target), operand(weight), *options
    )
    return tensor(loss), tensor(gradient)


def _cross_entropy_backward(
    grad_output: torch.Tensor,
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    wanted: list[bool],
) -> tuple[torch.Tensor, torch.Tensor]:
    names = tuple(n for n, asked in zip(("input", "target"), wanted, strict=True) if asked)
    gradients = iter(
        tilegrad.cross_entropy_backward(
            operand(grad_output),
            operand(input),
            operand(target),
            operand(weight),
            ignore_index,
            reduction,
            label_smoothing,
            wrt=names,
        )
    )
    first, second = (tensor(next(gradients)) if asked else input.new_empty(0) for asked in wanted)
    return first, second


def _fake(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None,
    ignore_index: int,
    reduction: str,
    *_: Any,
) -> torch.Tensor:
    if reduction != "none":
        return input.new_empty(())
    return input.new_empty((*input.shape[: 1 if input.dim() > 1 else 0], *input.shape[2:]))


def _contiguous_like(t: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(t, memory_format=torch.contiguous_format)


def _fake_pair(input: torch.Tensor, *args: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return _fake(input, *args), _contiguous_like(input)


def _fake_backward(
    grad_output: torch.Tensor, input: torch.Tensor, target: torch.Tensor, *args: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    of_input, of_target = args[-1]
    return (
        _contiguous_like(input) if of_input else input.new_empty(0),
        _contiguous_like(target) if of_target else input.new_empty(0),
    )


_plain = define(f"cross_entropy({_INPUTS}) -> Tensor", _cross_entropy, _fake)
_fused = define(
    f"cross_entropy_value_and_grad({_INPUTS}) -> (Tensor, Tensor)", _value_and_grad, _fake_pair
)
_backward = define(
    f"cross_entropy_backward(Tensor grad_output, {_INPUTS}, bool[2] wanted) -> (Tensor, Tensor)",
    _cross_entropy_backward,
    _fake_backward,
)

_scaled = define(
    "scaled_gradient(Tensor gradient, Tensor scale) -> Tensor",
    lambda gradient, scale: gradient * scale,
    lambda gradient, scale: torch.empty_like(gradient),
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.options = inputs[3:]


def _differentiate(ctx: Any, saved: tuple[Any, ...], grad_output: torch.Tensor) -> tuple[Any, ...]:
    wanted = list(ctx.needs_input_grad[:2])
    gradients = _backward(grad_output, *saved, *ctx.options, wanted)
    chosen = (g if asked else None for g, asked in zip(gradients, wanted, strict=True))
    return (*chosen, None, None, None, None)


def _setup_fused(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1])


def _differentiate_fused(
    ctx: Any, saved: tuple[torch.Tensor], grad_output: torch.Tensor | None, *_: Any
) -> tuple[Any, ...]:
    if grad_output is None:
        return (None,) * 6
    if torch.is_grad_enabled():  # the logits are not kept: a second derivative would miss them
        raise no_second_derivatives("cross_entropy")
    (gradient,) = saved
    return _scaled(gradient, grad_output), *[None] * 5


differentiate(_plain, _setup, _differentiate)
differentiate(_fused, _setup_fused, _differentiate_fused)
differentiate_once(_backward)
differentiate_once(_scaled)


def cross_entropy(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Return the cross-entropy of logits and targets, `tilegrad.cross_entropy`, differentiably.

    Where the loss is a scalar of class indices and will be differentiated, the gradient is made in
    the same pass over the logits. No gradient flows to `weight`.

    Args:
        input: Logits `(C,)`, `(N, C)` or `(N, C, d1, ...)`, float32, float64 or bfloat16.
        target: Class indices, input's shape without C; or probabilities, input's shape and dtype.
        weight: `(C,)`, a factor for each class, or None.
        ignore_index: A class index whose rows count for nothing.
        reduction: "mean", "sum" or "none".
        label_smoothing: The share of the target that is spread over all classes, in [0, 1].

    Returns:
        A scalar; for "none" a tensor of input's shape without C.

    Raises:
        TypeError: If dtypes or devices differ or are not supported.
        ValueError: If shapes do not fit, `weight` requires a gradient, an option is out of range,
            or on the CPU a class is.

    Example:
        >>> cross_entropy(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
        tensor(0.6931)

    Source: torch.nn.functional.cross_entropy
    """
    refuse_forward_mode("cross_entropy", input, target, weight)
    if weight is not None and weight.requires_grad and torch.is_grad_enabled():
        raise ValueError("cross_entropy: weight has no gradient here; pass weight.detach()")
    input, target, weight = autocast(  # type: ignore[assignment]
        input, target, weight, dtype=torch.float32
    )
    options = (weight, ignore_index, reduction, label_smoothing)
    has_classes = not target.is_floating_point()
    if has_classes and reduction != "none" and input.requires_grad and torch.is_grad_enabled():
        loss: torch.Tensor = _fused(input, target, *options)[0]
        return loss
    loss = _plain(input, target, *options)
    return loss
