# SPDX-License-Identifier: MIT
"""How the oracle itself is checked: central differences, and torch in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

Array = NDArray[Any]
Case = dict[str, Any]
INF, NAN = math.inf, math.nan


def assert_close(got: Any, want: Any, rtol: float = 1e-12, atol: float = 1e-14) -> None:
    """Compare shapes and values (NaN equals NaN) and name the worst element."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, f"shape {got.shape}, expected {want.shape}"
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(got - want) / (atol + rtol * np.abs(want)))
    error = np.where(np.isnan(error), INF, error)
    if error.size and error.max() > 1:
        worst = np.unravel_index(error.argmax(), error.shape)
        at = tuple(int(i) for i in worst)
        pytest.fail(
            f"{int((error > 1).sum())} of {error.size} differ; worst at {at}: "
            f"got {got[at]!r}, expected {want[at]!r} ({error[at]:.3g} x tolerance)"
        )


def central_difference(f: Callable[[Array], Any], x: Array, grad_output: Array) -> Array:
    """d sum(f(x) grad_output) / dx by Richardson's extrapolation of two central differences."""
    grad = np.zeros(x.shape)
    for i in np.ndindex(x.shape):

        def at(h: float, i: tuple[int, ...] = i) -> float:
            shifted = x.copy()
            shifted[i] += h
            return float((f(shifted) * grad_output).sum())

        wide, narrow = ((at(h) - at(-h)) / (2 * h) for h in (2e-3, 1e-3))
        grad[i] = (4 * narrow - wide) / 3
    return grad


def assert_gradient(f: Callable[[Array], Any], x: Array, grad_output: Array, got: Any) -> None:
    assert_close(got, central_difference(f, x, grad_output), rtol=1e-7, atol=1e-8)


def torch_value_and_grads(
    f: Callable[..., torch.Tensor], inputs: list[Array], grad_output: Array | None = None
) -> tuple[Array, list[Array]]:
    """Run f and its autograd; grad_output of None means ones."""
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in inputs]
    value = f(*leaves)
    upstream = torch.ones_like(value) if grad_output is None else torch.as_tensor(grad_output)
    grads = torch.autograd.grad(value, leaves, upstream)
    return value.detach().numpy(), [g.numpy() for g in grads]


def rng_for(*key: object) -> np.random.Generator:
    return np.random.default_rng([ord(c) for c in repr(key)])
