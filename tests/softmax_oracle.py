# SPDX-License-Identifier: MIT
"""softmax and log_softmax by name, what they must give, and how exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from helpers import FLOATS, Array
from tilegrad import reference

NAMES = ("softmax", "log_softmax")
every_name = pytest.mark.parametrize("name", NAMES)
every_dtype = pytest.mark.parametrize("dtype", FLOATS)


def forward(name: str) -> Any:
    return getattr(tg, name)


def backward(name: str) -> Any:
    return getattr(tg, f"{name}_backward")


def expected_of(name: str, x: Array, dim: int) -> Array:
    return getattr(reference, name)(x, dim)


def expected_gradient(name: str, dy: Array, x: Array, dim: int) -> Array:
    return getattr(reference, f"{name}_backward")(dy, x, dim)


def total(x: Array, dim: int) -> Array:
    return x.sum(axis=dim, keepdims=True) if x.ndim else x


def spread(x: Array, dim: int) -> Array:
    """Return max - x in float64: subtracting the max in x's dtype rounds it by half an eps."""
    wide = x.astype(np.float64)
    if not x.size:
        return wide
    with np.errstate(invalid="ignore"):
        far = (wide.max(axis=dim, keepdims=True) if x.ndim else wide) - wide
    return np.where(np.isfinite(far), far, 0)


def relative_error(x: Array, dim: int) -> Array:
    """Return the relative error allowed to exp(x - max) / sum.

    A few eps for exp, division and rounding, eps times the distance from the max, the mean of that
    distance for the sum, and the rounding of a sum of positive terms in a fixed, blocked order.
    """
    far = spread(x, dim)
    share = np.nan_to_num(expected_of("softmax", x, dim))
    classes = x.shape[dim] if x.ndim else 1
    return np.finfo(x.dtype).eps * (8 + far + total(share * far, dim) + np.sqrt(classes))


def bound(name: str, x: Array, dim: int, expected: Array) -> Array:
    info = np.finfo(x.dtype)
    relative = relative_error(x, dim)
    if name == "softmax":
        return relative * np.abs(expected) + 4 * float(info.smallest_subnormal)
    finite = np.where(np.isfinite(expected), np.abs(expected), 0)
    return relative + 2 * info.eps * finite


def gradient_bound(name: str, dy: Array, x: Array, dim: int) -> Array:
    """Propagate the error of the shares through dx = y (dy - sum dy y), or dy - y sum dy."""
    relative = relative_error(x, dim)
    share = np.nan_to_num(expected_of("softmax", x, dim))
    classes = x.shape[dim] if x.ndim else 1
    size = np.abs(dy.astype(np.float64))
    eps = np.finfo(x.dtype).eps
    if name == "softmax":
        scale = share * (size + total(share * size, dim))
        worst = total(share * size * relative, dim)
        return 2 * relative * scale + share * worst + 1e-37 * (x.dtype == np.float32)
    return eps * size + share * total(size, dim) * (2 * relative + eps * np.sqrt(classes))
