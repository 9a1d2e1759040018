# SPDX-License-Identifier: MIT
"""bfloat16 and float16: how arrays get to a device and back, and what a rounding costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import tilegrad as tg
from helpers import Array, Device, aligned
from tilegrad import array as arrays


@dataclass(frozen=True)
class Half:
    """A 16-bit format: its bits of significand, smallest exponent and largest number."""

    name: str
    torch: torch.dtype
    digits: int  # of the significand, the leading one included
    least: int  # exponent of the spacing of subnormal numbers
    largest: float

    @property
    def eps(self) -> float:
        return 2.0 ** (1 - self.digits)

    def spacing(self, x: Array) -> Array:
        """Return the distance between the neighbours of each number."""
        finite = np.where(np.isfinite(x), np.abs(x), 0)
        exponent = np.where(finite > 0, np.frexp(finite)[1] - self.digits, self.least)
        return np.ldexp(1.0, np.maximum(exponent, self.least))

    def round(self, x: Array) -> Array:
        """Return the nearest numbers of the format, in float64."""
        tensor = torch.from_numpy(np.array(x, np.float32)).to(self.torch)
        return tensor.double().numpy()

    def put(self, device: Device, x: Array, offset: int = 0) -> Any:
        """Return the rounded numbers on the device, `offset` elements after an aligned address."""
        tensor = torch.from_numpy(np.array(x, np.float32)).to(self.torch)
        bits = tensor.view(torch.int16).numpy().view(np.uint16)
        if device.name == "cpu":
            assert self is BFLOAT16, "float16 is not on the cpu"
            return aligned(bits.view(ml_dtypes.bfloat16), offset)
        return reinterpreted(device.put(bits, offset), self.name)

    def get(self, x: Any) -> Array:
        """Return a device's numbers in float64."""
        if not isinstance(x, tg.Array):
            assert x.dtype.name == self.name, "the result has another dtype"
            return np.asarray(x).astype(np.float64)
        assert x._dtype == arrays._CODES[self.name], "the result has another dtype"
        bits = reinterpreted(x, "uint16").numpy().view(np.int16)
        return torch.from_numpy(bits).view(self.torch).double().numpy()

    def patterns(self) -> Array:
        """Return the number of every bit pattern, in float64."""
        bits = torch.from_numpy(np.arange(2**16, dtype=np.uint16).view(np.int16))
        return bits.view(self.torch).double().numpy()

    def __str__(self) -> str:
        return self.name


BFLOAT16 = Half("bfloat16", torch.bfloat16, 8, -133, float(torch.finfo(torch.bfloat16).max))
FLOAT16 = Half("float16", torch.float16, 11, -24, 65504.0)
HALVES = (BFLOAT16, FLOAT16)


def every_half(test: Any) -> Any:
    """Run a test with both formats, on the cpu with bfloat16."""
    on_cpu = pytest.mark.on_cpu("half", lambda half: half is BFLOAT16)
    return on_cpu(pytest.mark.parametrize("half", HALVES, ids=str)(test))


def normal(rng: np.random.Generator, half: Half, shape: tuple[int, ...]) -> Array:
    return half.round(rng.standard_normal(shape))


def reinterpreted(x: Any, dtype: str) -> Any:
    """Return a view of the same bits; NumPy has no bfloat16 without ml_dtypes."""
    view = x._view(0, x.shape)
    view._dtype = arrays._CODES[dtype]
    return view


def bits(x: Any) -> Array:
    """Return a result's bits."""
    if isinstance(x, tg.Array):
        return reinterpreted(x, "uint16").numpy()
    return np.asarray(x).view(np.uint16)


def once(half: Half, want: Array, inside: Any = 0.0) -> Array:
    """Bound a result that is rounded once: half a spacing, and what the float32 before it erred.

    Beyond the middle between the largest number and its successor the rounded result is infinite.
    """
    return 0.5 * half.spacing(np.abs(want) + inside) + inside


def overflown(half: Half, want: Array) -> Array:
    """Return what is expected after rounding: the value, or infinity beyond the largest."""
    limit = half.largest + 0.5 * float(half.spacing(np.array(half.largest)))
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(want) >= limit, np.copysign(np.inf, want), want)
