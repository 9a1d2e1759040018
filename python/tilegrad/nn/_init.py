# SPDX-License-Identifier: MIT
"""Initial values, drawn by one scalar path from the process-wide stream: equal on every machine."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from tilegrad import _cpu, _random
from tilegrad.nn.module import Array


def uniform(shape: tuple[int, ...], low: float, high: float, dtype: DTypeLike) -> Array:
    """Return values of U(low, high), float32 or float64."""
    kind = np.dtype(dtype)
    if kind not in (np.float32, np.float64):
        raise TypeError(f"parameters must be float32 or float64; got {kind}")
    seed, offset = _random.take(math.prod(shape))
    values: Array = _cpu.random_uniform(shape, kind == np.float64, low, high, seed, offset)
    return values
