# SPDX-License-Identifier: MIT
"""Activations and their derivatives on arrays from the innermost caches to memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import tilegrad as tg
from tilegrad import reference
from tilegrad.bench.cases import ELEMENTS
from tilegrad.bench.environment import jax, torch
from tilegrad.bench.harness import Call, Case, Contest

from ._common import FLOAT, Array, contest, empty, jitted, random, tensors

_LARGEST = 1_000_000  # beyond it everybody waits for memory
_QUICK = {"relu 100000 forward", "gelu tanh 100000 forward", "gelu 100000 backward"}


@dataclass(frozen=True)
class _Function:
    """An activation: operations of the formula forward and backward, and what torch calls it.

    Attributes:
        name: In tilegrad.
        flops: Forward, backward.
        torch_backward: torch's kernel.
        from_output: Whether the derivative is taken from y.
        options: Of both sides.
        numpy: Forward in NumPy where that is one or two calls.
    """

    name: str
    flops: tuple[int, int]
    torch_backward: str
    from_output: bool
    options: dict[str, str]
    numpy: Callable[[Array, Array], Any] | None = None


def _numpy_sigmoid(x: Array, out: Array) -> Array:
    np.exp(-x, out=out)
    out += 1
    return np.reciprocal(out, out=out)


_FUNCTIONS = {
    "relu": _Function("relu", (1, 1), "threshold_backward", True, {},
                      lambda x, out: np.maximum(x, 0, out=out)),
    "sigmoid": _Function("sigmoid", (4, 3), "sigmoid_backward", True, {}, _numpy_sigmoid),
    "tanh": _Function("tanh", (5, 3), "tanh_backward", True, {},
                      lambda x, out: np.tanh(x, out=out)),
    "gelu": _Function("gelu", (5, 10), "gelu_backward", False, {}),
    "gelu tanh": _Function("gelu", (12, 20), "gelu_backward", False, {"approximate": "tanh"}),
    "silu": _Function("silu", (5, 8), "silu_backward", False, {}),
}  # fmt: skip


# Derivatives from y, where that is what is measured; else jax takes its own, of x.
_JAX_BACKWARD: dict[str, Callable[[Any, Any], Any]] = {
    "relu": lambda dy, y: jax().numpy.where(y > 0, dy, 0),
    "sigmoid": lambda dy, y: dy * (y * (1 - y)),
    "tanh": lambda dy, y: dy * (1 - y * y),
}


def cases() -> list[Case]:
    """Return the cases: forward reads x and writes y; backward reads dy and x or y, writes dx."""
    result = []
    for label, function in _FUNCTIONS.items():
        for shape in ELEMENTS:
            if not shape.timed or shape.size > _LARGEST:
                continue
            n = shape.size
            forward, backward = f"{label} {n} forward", f"{label} {n} backward"
            result += [
                Case("activation", forward, 2 * FLOAT * n, function.flops[0] * n,
                     partial(_forward, function, n), forward in _QUICK),
                Case("activation", backward, 3 * FLOAT * n, function.flops[1] * n,
                     partial(_backward, function, n), backward in _QUICK),
            ]  # fmt: skip
    return result


def _forward(function: _Function, n: int) -> Contest:
    x, out, out_numpy, out_torch = random("x", n), empty(n), empty(n), empty(n)
    name, options, numpy = function.name, function.options, function.numpy
    ours = getattr(tg, name)
    peers: dict[str, Call] = {}
    if numpy is not None:
        peers["numpy"] = lambda: numpy(x, out_numpy)
    if (pt := torch()) is not None:
        tx, tout = tensors(x, out_torch)
        usual = getattr(pt, name, None) or getattr(pt.nn.functional, name)
        kernel = getattr(pt.ops.aten, name).out
        peers["torch"] = lambda: usual(tx, **options)
        peers["torch out="] = lambda: kernel(tx, **options, out=tout)
    if jax() is not None:
        peers["jax"] = jitted(_jax_function(function), x)
    return contest(
        lambda: ours(x, **options, out=out), peers, lambda: getattr(reference, name)(x, **options)
    )


def _backward(function: _Function, n: int) -> Contest:
    x, dy, dx, dx_torch = random("x", n), random("dy", n), empty(n), empty(n)
    name, options = function.name, function.options
    y = getattr(tg, name)(x, **options)
    ours = getattr(tg, f"{name}_backward")
    given = {**options, "output": y} if function.from_output else options
    peers: dict[str, Call] = {}
    if (pt := torch()) is not None:
        tdy, tsaved, tdx = tensors(dy, y if function.from_output else x, dx_torch)
        packet = getattr(pt.ops.aten, function.torch_backward)
        more = (0,) if name == "relu" else ()
        usual, kernel = packet.default, packet.grad_input
        peers["torch"] = lambda: usual(tdy, tsaved, *more, **options)
        peers["torch out="] = lambda: kernel(tdy, tsaved, *more, **options, grad_input=tdx)
    if jax() is not None:
        whole = _jax_function(function)
        slope = _JAX_BACKWARD.get(name, lambda dy, x: jax().vjp(whole, x)[1](dy)[0])
        peers["jax"] = jitted(slope, dy, y if function.from_output else x)
    return contest(
        lambda: ours(dy, x, **given, out=dx),
        peers,
        lambda: getattr(reference, f"{name}_backward")(dy, x, **options),
    )


def _jax_function(function: _Function) -> Callable[[Any], Any]:
    """Return jax's own function, with the options of ours."""
    usual = getattr(jax().nn, function.name)
    if function.name != "gelu":
        return partial(usual)
    return partial(usual, approximate="approximate" in function.options)
