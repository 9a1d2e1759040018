# SPDX-License-Identifier: MIT
"""Conversion, broadcasting and selection, shared by the reference ops."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

quiet = partial(np.errstate, all="ignore")  # infinities and NaN are results here, not accidents


def f64(x: ArrayLike) -> Array:
    return np.asarray(x, dtype=np.float64)


def sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """Undo broadcasting: sum x over the axes along which an array of this shape was repeated."""
    lead = x.ndim - len(shape)
    repeated = tuple(lead + i for i, size in enumerate(shape) if size == 1)
    return np.asarray(x.sum(axis=(*range(lead), *repeated), keepdims=True).reshape(shape))


def pick(wrt: str | Sequence[str], **grads: Array) -> Any:
    """Return the gradients that wrt names: one array, or a tuple in input order."""
    names = [wrt] if isinstance(wrt, str) else wrt
    if not names or not set(names) <= set(grads):
        raise ValueError(f"wrt: must name some of {tuple(grads)}; got {wrt!r}")
    chosen = tuple(grad for name, grad in grads.items() if name in names)
    return chosen[0] if len(chosen) == 1 else chosen
