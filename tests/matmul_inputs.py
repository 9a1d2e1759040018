# SPDX-License-Identifier: MIT
"""What the tests of matmul and matmul_backward multiply."""

from __future__ import annotations

from typing import Any

import numpy as np

from helpers import Array

TRANSPOSES = [(False, False), (False, True), (True, False), (True, True)]


def integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    """Small integers: every product and partial sum is exact, so any order gives the same bits."""
    return rng.integers(-4, 5, shape).astype(dtype)


def mixed(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    """Normal numbers whose magnitudes span six decades."""
    return (rng.standard_normal(shape) * 10.0 ** rng.uniform(-3, 3, shape)).astype(dtype)


def swapped(x: Array, transpose: bool) -> Array:
    return np.ascontiguousarray(x.swapaxes(-1, -2)) if transpose else x
