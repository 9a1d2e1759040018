# SPDX-License-Identifier: MIT
"""Operands for tilegrad.torch and their comparison with torch in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from tilegrad.torch import _activations

Tensor = torch.Tensor
OPTIONS: dict[str, dict[str, float] | None] = {
    **dict.fromkeys(_activations._NAMES),
    "leaky_relu": {"negative_slope": 0.3},
    "elu": {"alpha": 0.7},
    "softplus": {"beta": 2.0, "threshold": 3.0},
    "hardtanh": {"min_val": -0.5, "max_val": 0.7},
}
NAMES = sorted(OPTIONS)
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14, torch.bfloat16: 2e-2}
every_activation = pytest.mark.parametrize("name", NAMES)
every_dtype = pytest.mark.parametrize("dtype", sorted(TOLERANCE, key=str))


def theirs(name: str) -> Callable[[Tensor], Tensor]:
    """Return torch's function of an activation, its options bound."""
    if name == "identity":
        return torch.clone
    if name == "hardsigmoid":  # torch's derivative is the float32 that is nearest to 1/6
        return lambda x: F.relu6(x + 3) / 6
    if name.startswith("gelu"):
        return lambda x: F.gelu(x, approximate="tanh" if name == "gelu_tanh" else "none")
    function = getattr(torch if name in ("sigmoid", "tanh") else F, name)
    return lambda x: function(x, **(OPTIONS[name] or {}))


def leaf(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def gradients(run: Callable[..., Tensor], *operands: Tensor) -> list[Tensor]:
    """Return the result of a function and the gradients of its operands."""
    fresh = [t.detach().clone().requires_grad_() for t in operands]
    result = run(*fresh)
    weight = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).reshape(result.shape)
    (result * weight).sum().backward()
    return [result.detach(), *(t.grad for t in fresh if t.grad is not None)]


def assert_same(
    run: Callable[..., Tensor], model: Callable[..., Tensor], *operands: Tensor
) -> None:
    """Compare values and gradients with those of torch in float64."""
    dtype = operands[0].dtype
    wide = [t.detach().double() for t in operands]
    mine, expected = gradients(run, *operands), gradients(model, *wide)
    assert len(mine) == len(expected)
    for got, value in zip(mine, expected, strict=True):
        assert got.dtype == dtype
        scale = float(value.abs().max()) + 1 if value.numel() else 1.0
        torch.testing.assert_close(got.double(), value, rtol=0, atol=TOLERANCE[dtype] * scale)
