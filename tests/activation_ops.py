# SPDX-License-Identifier: MIT
"""The activations under test, in one table, and how exact each must be."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import tilegrad as tg
from helpers import FLOATS, Array
from tilegrad import reference


@dataclass(frozen=True)
class Op:
    name: str
    torch: Callable[..., torch.Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    output_suffices: bool = True
    exact: bool = False  # one rounding at most

    def forward(self, x: Any, **more: Any) -> Any:
        return getattr(tg, self.name)(x, **self.options, **more)

    def backward(self, dy: Any, x: Any, **more: Any) -> Any:
        return getattr(tg, f"{self.name}_backward")(dy, x, **self.options, **more)

    def reference(self, x: Array) -> Array:
        return getattr(reference, self.name)(x, **self.options)

    def reference_backward(self, dy: Array, x: Array) -> Array:
        return getattr(reference, f"{self.name}_backward")(dy, x, **self.options)

    def torch_both(self, dy: Array, x: Array) -> tuple[Array, Array]:
        """Return torch's value and gradient in x's own dtype."""
        leaf = torch.tensor(x, requires_grad=True)
        y = self.torch(leaf)
        (dx,) = torch.autograd.grad(y, leaf, torch.tensor(dy))
        return y.detach().numpy(), dx.numpy()

    def __str__(self) -> str:
        return self.name + "".join(f"-{value}" for value in self.options.values())


def _slope(value: float) -> Callable[..., torch.Tensor]:
    return functools.partial(F.leaky_relu, negative_slope=value)


def hardsigmoid(x: torch.Tensor) -> torch.Tensor:
    """Return F.hardsigmoid, whose own derivative is float32's 1/6 in float64 too."""
    return F.hardtanh(x + 3, 0, 6) / 6


OPS = (
    Op("identity", lambda x: x * 1, exact=True),
    Op("sigmoid", torch.sigmoid),
    Op("tanh", torch.tanh),
    Op("relu", F.relu, exact=True),
    Op("leaky_relu", F.leaky_relu, exact=True),
    Op("leaky_relu", _slope(0.25), {"negative_slope": 0.25}, exact=True),
    Op("leaky_relu", _slope(0.0), {"negative_slope": 0.0}, exact=True),
    Op("leaky_relu", _slope(-2.0), {"negative_slope": -2.0}, output_suffices=False, exact=True),
    Op("elu", F.elu),
    Op("elu", functools.partial(F.elu, alpha=0.3), {"alpha": 0.3}),
    Op("elu", functools.partial(F.elu, alpha=0.0), {"alpha": 0.0}),
    Op("elu", functools.partial(F.elu, alpha=-1.5), {"alpha": -1.5}, output_suffices=False),
    Op("selu", F.selu),
    Op("gelu", F.gelu, output_suffices=False),
    Op(
        "gelu",
        functools.partial(F.gelu, approximate="tanh"),
        {"approximate": "tanh"},
        output_suffices=False,
    ),
    Op("silu", F.silu, output_suffices=False),
    Op("softplus", F.softplus, output_suffices=False),
    Op(
        "softplus",
        functools.partial(F.softplus, beta=2.5, threshold=5.0),
        {"beta": 2.5, "threshold": 5.0},
        output_suffices=False,
    ),
    Op("softplus", functools.partial(F.softplus, beta=-0.5), {"beta": -0.5}, output_suffices=False),
    Op("mish", F.mish, output_suffices=False),
    Op("hardtanh", F.hardtanh, exact=True),
    Op(
        "hardtanh",
        functools.partial(F.hardtanh, min_val=-0.25, max_val=3.0),
        {"min_val": -0.25, "max_val": 3.0},
        exact=True,
    ),
    Op(
        "hardtanh",
        functools.partial(F.hardtanh, min_val=-0.3, max_val=0.9),
        {"min_val": -0.3, "max_val": 0.9},
        output_suffices=False,  # in 16 bits the bounds are rounded
    ),
    Op("relu6", F.relu6, exact=True),
    Op("hardsigmoid", hardsigmoid, output_suffices=False),
    Op("hardswish", F.hardswish, output_suffices=False),
)
every_op = pytest.mark.parametrize("op", OPS, ids=str)
every_dtype = pytest.mark.parametrize("dtype", FLOATS)


def values(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    """Numbers of all magnitudes at which an activation bends, zeros of both signs among them."""
    x = np.asarray(rng.standard_normal(shape) * 10.0 ** rng.uniform(-2, 1.3, shape))
    x = np.where(rng.random(shape) < 0.05, np.copysign(0.0, x), x)
    return np.asarray(x, dtype=dtype)


def oracle_error(x: Array) -> Array:
    """What the oracles themselves may err: plain float64 formulas, where 1 + tanh u, 1 - s cancel.

    The factor x multiplies what is left; beyond 40 nothing is left. It counts in float64 only.
    """
    return np.finfo(np.float64).eps * 4 * (1 + np.minimum(np.abs(x.astype(np.float64)), 40)) ** 2


def forward_bound(x: Array, expected: Array) -> Array:
    """4 ulp, or 1e-7 absolute (float32) for a result that crosses zero; the same number of eps."""
    eps = np.finfo(x.dtype).eps
    return np.maximum(4 * eps * np.abs(expected), 0.8 * eps) + oracle_error(x)


def backward_bound(dy: Array, x: Array, expected: Array) -> Array:
    """8 eps of the result or of grad_output.

    1 - y^2 from a tanh that is 4 ulp (of values below 1: 4 eps / 2) off is 4 eps off; the factors
    and the product add a few roundings.
    """
    scale = np.maximum(np.abs(expected), np.abs(dy.astype(np.float64)))
    return 8 * np.finfo(x.dtype).eps * scale + oracle_error(x) * np.abs(dy)
