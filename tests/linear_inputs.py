# SPDX-License-Identifier: MIT
"""What the tests of linear and linear_backward run, and how exact the gradients must be."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from activation_ops import hardsigmoid
from helpers import Array, tolerance
from tilegrad.bench.cases import LINEAR

# name, activation_args, torch's function, whether the output suffices for the derivative
ACTIVATIONS: list[tuple[str | None, dict[str, float] | None, Any, bool]] = [
    (None, None, lambda z: z, True),
    ("identity", None, lambda z: z, True),
    ("sigmoid", None, torch.sigmoid, True),
    ("tanh", None, torch.tanh, True),
    ("relu", None, F.relu, True),
    ("leaky_relu", None, F.leaky_relu, True),
    (
        "leaky_relu",
        {"negative_slope": 0.25},
        functools.partial(F.leaky_relu, negative_slope=0.25),
        True,
    ),
    (
        "leaky_relu",
        {"negative_slope": -2.0},
        functools.partial(F.leaky_relu, negative_slope=-2.0),
        False,
    ),
    ("elu", None, F.elu, True),
    ("elu", {"alpha": 0.5}, functools.partial(F.elu, alpha=0.5), True),
    ("elu", {"alpha": -0.5}, functools.partial(F.elu, alpha=-0.5), False),
    ("selu", None, F.selu, True),
    ("gelu", None, F.gelu, False),
    ("gelu_tanh", None, functools.partial(F.gelu, approximate="tanh"), False),
    ("silu", None, F.silu, False),
    ("softplus", None, F.softplus, False),
    (
        "softplus",
        {"beta": 0.5, "threshold": 1.0},
        functools.partial(F.softplus, beta=0.5, threshold=1.0),
        False,
    ),
    ("mish", None, F.mish, False),
    ("hardtanh", None, F.hardtanh, True),
    (
        "hardtanh",
        {"min_val": -0.3, "max_val": 0.7},
        functools.partial(F.hardtanh, min_val=-0.3, max_val=0.7),
        False,  # in 16 bits the bounds are rounded
    ),
    ("relu6", None, F.relu6, True),
    ("hardsigmoid", None, hardsigmoid, False),
    ("hardswish", None, F.hardswish, False),
]
IDS = [f"{name}{list(args.values()) if args else ''}" for name, args, _, _ in ACTIVATIONS]
STEEPEST = 2.0  # no activation above has a larger |f'|
SMALL = [case for case in LINEAR if case.flops <= 2**26]


def grid(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, step: float = 0.25) -> Array:
    """Multiples of a power of two: products and sums are exact, in any order."""
    return (rng.integers(-4, 5, shape) * step).astype(dtype)


def operands(
    rng: np.random.Generator, lead: tuple[int, ...], inputs: int, outputs: int, dtype: Any
) -> tuple[Array, Array, Array, Array]:
    """Return dy, x, weight and bias such that every preactivation is exact and none is huge."""
    x = grid(rng, (*lead, inputs), dtype)
    weight = grid(rng, (outputs, inputs), dtype, 0.25 / 2 ** (max(inputs, 1).bit_length() // 2))
    bias = grid(rng, (outputs,), dtype, 0.125)
    return rng.standard_normal((*lead, outputs)).astype(dtype), x, weight, bias


def backward_bounds(
    dy: Array, x: Array, weight: Array, dtype: Any, rounding: float
) -> tuple[Array, Array, Array]:
    """Bound each gradient's error: `rounding` eps of |dy| for f', then one sum of products."""
    inputs, outputs = weight.shape[1], weight.shape[0]
    dz = STEEPEST * np.abs(dy.astype(np.float64)).reshape(-1, outputs)
    rows = dz.shape[0]
    eps = np.finfo(dtype).eps

    def bound(scale: Array, length: int) -> Array:
        return (tolerance(dtype, length) + rounding * eps) * scale

    return (
        bound(dz @ np.abs(weight), outputs).reshape((*dy.shape[:-1], inputs)),
        bound(dz.T @ np.abs(x.reshape(rows, inputs)), rows),
        bound(dz.sum(axis=0), rows),
    )
