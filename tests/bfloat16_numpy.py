# SPDX-License-Identifier: MIT
"""bfloat16 in NumPy for the tests of training: rounding by hand, and a comparison of bits."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from helpers import Array, host

BF16 = np.dtype(ml_dtypes.bfloat16)


def nearest(x: Array) -> Array:
    """Return float32 rounded to bfloat16, ties to even, by integer arithmetic."""
    bits = np.asarray(x, np.float32).reshape(np.shape(x)).view(np.uint32)
    kept, rest = bits >> 16, bits & 0xFFFF
    up = (rest > 0x8000) | ((rest == 0x8000) & (kept % 2 == 1))
    kept = np.where(np.isnan(x), kept | 0x40, kept + up)
    return kept.astype(np.uint16).view(BF16)


def same_bits(a: Any, b: Any) -> bool:
    a, b = host(a), host(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
