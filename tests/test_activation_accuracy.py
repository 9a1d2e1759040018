# SPDX-License-Identifier: MIT
"""Accuracy of the smooth activations over the whole range of float32, on every device.

Results lie within 4 ulp of the float64 value rounded to float32, denormals included; gelu and silu
within 4 ulp or 1e-7, mish within 6 ulp or 1e-43 (where its exp is a denormal). The oracle is torch
in float64, on every 257th of the 2^32 bit patterns and on all floats near the points where an
implementation may change its formula (on every pattern in the slow test). The derivatives, for a
grad_output of one, lie within 8 ulp where they have one factor of exp, else within 8 ulp or 5e-7.

On the CPU gelu keeps its relative accuracy for negative x too, within 12 ulp down to the denormals,
and what is float64 lies within 4 ulp of the C library's long double (derivatives of sigmoid 8).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import tilegrad as tg
from helpers import Array, Device
from tilegrad import _cpu

ISAS = tuple(_cpu.supported_isas())
PATTERNS = 1 << 32
CHUNK = 1 << 19
edges_suffice_on_sim = pytest.mark.simulated("curve", lambda curve: False)
BREAKPOINTS = (0.5, 0.625, 1, 2, 4, 8, 9, 10, 88, 104)
SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946

Tensor = torch.Tensor


def _softplus(x: Tensor) -> Tensor:
    return torch.where(x > 20, x, torch.log1p(torch.exp(x)))


def _gelu(x: Tensor) -> Tensor:
    return 0.5 * x * torch.special.erfc(-x * math.sqrt(0.5))


def _twice_u(x: Tensor) -> Tensor:
    return 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


def _gelu_backward(x: Tensor) -> Tensor:
    density = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return 0.5 * torch.special.erfc(-x * math.sqrt(0.5)) + x * density


def _gelu_tanh_backward(x: Tensor) -> Tensor:
    u, slope = _twice_u(x), 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    steep = x * torch.sigmoid(u) * torch.sigmoid(-u) * slope
    finite = torch.isfinite(x) & (x.abs() > 1e3)  # there the product is 0 although slope overflows
    return torch.sigmoid(u) + torch.where(finite, 0.0, steep)


def _tanh_backward(x: Tensor) -> Tensor:
    return 4 * torch.sigmoid(2 * x) * torch.sigmoid(-2 * x)


def _elu_backward(x: Tensor) -> Tensor:
    return torch.where(x > 0, 1.0, torch.exp(x))


@dataclass(frozen=True)
class Curve:
    """A function of one variable: the op, its value in float64, and what it may err."""

    name: str
    op: Callable[..., Any]
    exact: Callable[[Tensor], Tensor]
    ulps: int
    absolute: float = 0.0

    def __str__(self) -> str:
        return self.name


def _gelu_tanh(x: Any, out: Any) -> Any:
    return tg.gelu(x, approximate="tanh", out=out)


FORWARD = (
    Curve("sigmoid", tg.sigmoid, torch.sigmoid, 4),
    Curve("tanh", tg.tanh, torch.tanh, 4),
    Curve("elu", tg.elu, lambda x: torch.where(x > 0, x, torch.expm1(x)), 4),
    Curve(
        "selu",
        tg.selu,
        lambda x: SELU_SCALE * torch.where(x > 0, x, SELU_ALPHA * torch.expm1(x)),
        4,
    ),
    Curve("softplus", tg.softplus, _softplus, 4),
    Curve("mish", tg.mish, lambda x: x * torch.tanh(_softplus(x)), 6, 1e-43),
    Curve("gelu", tg.gelu, _gelu, 4, 1e-7),
    Curve("gelu_tanh", _gelu_tanh, lambda x: x * torch.sigmoid(_twice_u(x)), 4, 1e-7),
    Curve("silu", tg.silu, lambda x: x * torch.sigmoid(x), 4, 1e-7),
)


def _derivative(name: str, **options: Any) -> Callable[..., Any]:
    function = getattr(tg, f"{name}_backward")

    def call(x: Any, out: Any) -> Any:
        if isinstance(x, np.ndarray):
            ones = np.broadcast_to(np.float32(1), x.shape)
        else:
            ones = tg.ones(x.shape, device=x.device)
        return function(ones, x, out=out, **options)

    return call


BACKWARD = (
    Curve(
        "sigmoid",
        _derivative("sigmoid"),
        lambda x: torch.sigmoid(x) * torch.sigmoid(-x),
        8,
    ),
    Curve("tanh", _derivative("tanh"), _tanh_backward, 8, 5e-7),
    Curve("elu", _derivative("elu"), _elu_backward, 8),
    Curve(
        "selu",
        _derivative("selu"),
        lambda x: SELU_SCALE * torch.where(x > 0, 1.0, SELU_ALPHA * torch.exp(x)),
        8,
    ),
    Curve("gelu", _derivative("gelu"), _gelu_backward, 8, 5e-7),
    Curve("gelu_tanh", _derivative("gelu", approximate="tanh"), _gelu_tanh_backward, 8, 5e-7),
    Curve(
        "silu",
        _derivative("silu"),
        lambda x: torch.sigmoid(x) * (1 + x * torch.sigmoid(-x)),
        8,
        5e-7,
    ),
)


def every(step: int) -> Iterator[Array]:
    """Yield every step-th bit pattern as float32, in chunks."""
    for start in range(0, PATTERNS, step * CHUNK):
        stop = min(start + step * CHUNK, PATTERNS)
        yield np.arange(start, stop, step, dtype=np.uint64).astype(np.uint32).view(np.float32)


def edges() -> Array:
    """Return all floats near the breakpoints, zero, the denormals' end, the overflow and NaN."""
    info = np.finfo(np.float32)
    points = [
        *BREAKPOINTS,
        0.0,
        info.tiny,
        2**-126 / 2,
        2**-24,
        2**-12,
        17.33,
        16.64,
        87.34,
        103.28,
    ]
    points += [5.42, 7.5, 9.19, 13.1, info.max]
    centres = np.array(points, np.float32).view(np.uint32).astype(np.int64)
    near = (centres[:, None] + np.arange(-8192, 8193)).ravel()
    positive = np.clip(near, 0, 0x7F800000).astype(np.uint32)
    nans = np.array([0x7F800001, 0x7FC00000, 0x7FFFFFFF], np.uint32)
    bits = np.concatenate([positive, nans])
    return np.concatenate([bits, bits | np.uint32(1 << 31)]).view(np.float32)


def ordered(x: Array) -> Array:
    """Map float32 to integers such that neighbours differ by one and both zeros are 0."""
    bits = x.view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def check(curve: Curve, x: Array, device: Device) -> None:
    with torch.no_grad():
        exact = curve.exact(torch.from_numpy(x).double())
    rounded = exact.float().numpy()
    actual = np.empty_like(x)
    for isa in ISAS if device.name == "cpu" else (device.name,):
        actual.fill(-7)
        if device.name == "cpu":
            _cpu._set_isa(isa)
            curve.op(x, out=actual)
        else:
            actual[...] = device.get(curve.op(device.put(x), out=None))
        # quick: the bits are within `ulps`, as unsigned numbers that wrap; the rest is looked at
        apart = (actual.view(np.uint32) - rounded.view(np.uint32)) + np.uint32(curve.ulps)
        doubtful = np.flatnonzero(apart > 2 * curve.ulps)
        if not doubtful.size:
            continue
        a, e, exact_value = actual[doubtful], rounded[doubtful], exact.numpy()[doubtful]
        distance = np.abs(ordered(a) - ordered(e))
        number = ~np.isnan(a) & ~np.isnan(e)
        with np.errstate(invalid="ignore"):
            near = (distance <= curve.ulps) | (np.abs(a - exact_value) <= curve.absolute)
        wrong = ~np.where(number, near, np.isnan(a) & np.isnan(e))
        if wrong.any():
            i = int(np.flatnonzero(wrong)[np.argmax(np.where(number, distance, 2**40)[wrong])])
            at = x[doubtful[i]]
            pytest.fail(
                f"{curve} on {isa}: {int(wrong.sum())} of {x.size} values are wrong; worst at "
                f"x = {at!r} ({float(at).hex()}): got {a[i]!r}, exact {exact_value[i]!r}, "
                f"{distance[i]} ulp away, {curve.ulps} allowed"
            )


@pytest.mark.parametrize("curve", FORWARD, ids=str)
def test_activation_accuracy_at_edges(device: Device, curve: Curve) -> None:
    check(curve, edges(), device)


@pytest.mark.parametrize("curve", BACKWARD, ids=str)
def test_derivative_accuracy_at_edges(device: Device, curve: Curve) -> None:
    check(curve, edges(), device)


def test_gelu_keeps_relative_accuracy_for_negative_input() -> None:
    start, stop = (int(np.float32(v).view(np.uint32)) for v in (-1e-30, -14.5))
    x = np.arange(start, stop, 257, dtype=np.uint32).view(np.float32)
    check(Curve("gelu", tg.gelu, _gelu, 12), x, Device("cpu"))


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_activation_stays_within_its_range(isa: str, name: str) -> None:
    start, stop = (int(np.float32(v).view(np.uint32)) for v in (0.25, 32))
    x = np.arange(start, stop, 29, dtype=np.uint32).view(np.float32)
    y, below = getattr(tg, name)(x), getattr(tg, name)(-x)
    assert y.max() == 1
    assert below.min() >= (-1 if name == "tanh" else 0)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


# The op, in long double, and what it may err in ulp.
DOUBLE: dict[str, tuple[Callable[..., Any], Callable[..., Any], int]] = {
    "sigmoid": (tg.sigmoid, _sigmoid, 4),
    "tanh": (tg.tanh, np.tanh, 4),
    "elu": (tg.elu, lambda x: np.where(x > 0, x, np.expm1(x)), 4),
    "silu": (tg.silu, lambda x: x * _sigmoid(x), 5),
    "sigmoid_backward": (
        lambda x: tg.sigmoid_backward(np.ones_like(x), x),
        lambda x: _sigmoid(x) * _sigmoid(-x),
        8,
    ),
    "elu_backward": (
        lambda x: tg.elu_backward(np.ones_like(x), x),
        lambda x: np.where(x > 0, 1, np.exp(x)),
        4,
    ),
}


@pytest.mark.skipif(
    np.finfo(np.longdouble).nmant <= 52, reason="long double is no wider than double here"
)
@pytest.mark.parametrize("name", DOUBLE)
def test_float64_accuracy(isa: str, name: str, rng: np.random.Generator) -> None:
    op, exact, ulps = DOUBLE[name]
    magnitudes = np.ldexp(rng.uniform(0.5, 1, 100_000), rng.integers(-1074, 11, 100_000))
    parts = [rng.uniform(-r, r, 200_000) for r in (1, 4, 40, 760)]
    edges = np.arange(-2000, 2000)
    centres = np.array([2.0**-54, 0.34657359, 0.5, 1.0, 18.7, 36.7, 40, 708.396, 709.78, 745.13])
    near = np.abs(centres[:, None] * (1 + edges * 2.0**-52)).ravel()
    x = np.concatenate([*parts, magnitudes, -magnitudes, near, -near])
    with np.errstate(over="ignore", under="ignore"):
        expected = exact(x.astype(np.longdouble))
        rounded = expected.astype(np.float64)
    tail = np.abs(rounded) < 1e-290 if name == "silu" else np.zeros(x.shape, bool)
    unit = np.spacing(np.maximum(np.abs(rounded), np.finfo(np.float64).tiny))
    error = (np.abs(op(x) - expected) / unit).astype(np.float64)
    error[tail] = 0  # there sigmoid is denormal before it is multiplied
    i = int(error.argmax())
    assert error[i] <= ulps, f"{name} on {isa}: {error[i]:.2f} ulp at {x[i].hex()}"


@edges_suffice_on_sim
@pytest.mark.parametrize("curve", FORWARD, ids=str)
def test_activation_accuracy_on_every_257th_float(device: Device, curve: Curve) -> None:
    for x in every(257):
        check(curve, x, device)


@edges_suffice_on_sim
@pytest.mark.parametrize("curve", BACKWARD, ids=str)
def test_derivative_accuracy_on_every_4099th_float(device: Device, curve: Curve) -> None:
    for x in every(4099):
        check(curve, x, device)


@pytest.mark.slow
@edges_suffice_on_sim
@pytest.mark.parametrize("curve", FORWARD, ids=str)
def test_activation_accuracy_on_every_float(device: Device, curve: Curve) -> None:
    for x in every(1):
        check(curve, x, device)


@pytest.mark.slow
@edges_suffice_on_sim
@pytest.mark.parametrize("curve", BACKWARD, ids=str)
def test_derivative_accuracy_on_every_17th_float(device: Device, curve: Curve) -> None:
    for x in every(17):
        check(curve, x, device)
