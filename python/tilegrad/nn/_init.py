# SPDX-License-Identifier: MIT
"""Initial values, drawn by one scalar path from the process-wide stream: equal on every machine."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tilegrad import _cpu, _random
from tilegrad.array import _CODES, _numpy_dtype
from tilegrad.nn.module import Array


def uniform(shape: tuple[int, ...], low: float, high: float, dtype: DTypeLike) -> Array:
    """Return values of U(low, high): float32, float64, or bfloat16, which are float32's rounded."""
    kind = _kind(dtype)
    seed, offset = _random.take(math.prod(shape))
    values = _cpu.random_uniform(shape, kind == np.float64, low, high, seed, offset)
    return _rounded(values, kind)


def normal(shape: tuple[int, ...], mean: float, std: float, dtype: DTypeLike) -> Array:
    """Return values of N(mean, std^2), dtypes as of `uniform`; each uses two random words."""
    kind = _kind(dtype)
    seed, offset = _random.take(2 * math.prod(shape))
    values = _cpu.random_normal(shape, kind == np.float64, mean, std, seed, offset)
    return _rounded(values, kind)


def _kind(dtype: DTypeLike) -> np.dtype[Any]:
    by_name = isinstance(dtype, str) and dtype == "bfloat16"  # NumPy may not know the name
    try:
        kind = _numpy_dtype(_CODES["bfloat16"]) if by_name else np.dtype(dtype)
    except TypeError:  # such as torch.bfloat16
        kind = None
    if kind is not None and (kind.name == "bfloat16" or kind in (np.float32, np.float64)):
        return kind
    got = str(dtype if kind is None else kind)
    name = got.rpartition(".")[2]
    name = name if name in ("float32", "float64", "bfloat16") else "float32"
    raise TypeError(
        f"Linear: dtype must be float32, float64 or bfloat16; got {got} (give it by name: "
        f'dtype="{name}")'
    )


def _rounded(values: Array, kind: np.dtype[Any]) -> Array:
    return values.astype(kind) if kind.name == "bfloat16" else values
