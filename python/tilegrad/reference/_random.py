# SPDX-License-Identifier: MIT
"""Philox4x32-10 and what is drawn from it: dropout masks and initial values.

Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3 (SC 2011).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ._arrays import Array, f64, quiet

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEPS = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox4x32_10(counter: ArrayLike, key: Sequence[int]) -> NDArray[np.uint32]:
    """Mix counters (..., 4) under a key of 2 words into (..., 4) random words by 10 rounds."""
    c0, c1, c2, c3 = np.moveaxis(np.asarray(counter, dtype=np.uint64), -1, 0)
    k0, k1 = np.uint64(key[0]), np.uint64(key[1])
    for _ in range(10):  # a round: two 32 x 32 -> 64 bit products, high and low halves crossed
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _LOW, (p0 >> _32) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW, (k1 + _KEY_STEPS[1]) & _LOW
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def random_words(n: int, seed: int, offset: int) -> NDArray[np.uint32]:
    """Word i is word i mod 4 of the 64-bit counter offset + i // 4, under the 64-bit key seed."""
    blocks = np.uint64(offset % 2**64) + np.arange((n + 3) // 4, dtype=np.uint64)
    zero = np.zeros_like(blocks)
    counter = np.stack([blocks & _LOW, blocks >> _32, zero, zero], axis=-1)
    return philox4x32_10(counter, (seed % 2**32, seed % 2**64 >> 32)).reshape(-1)[:n]


def uniform(
    n: int, low: float, high: float, seed: int, offset: int, dtype: DTypeLike = np.float32
) -> NDArray[Any]:
    """Return low + (high - low) u in double, rounded to dtype; u = top 24 (float64: 32) bits."""
    bits = 32 if np.dtype(dtype) == np.float64 else 24
    u = (random_words(n, seed, offset) >> np.uint32(32 - bits)).astype(np.float64) * 2.0**-bits
    return np.asarray((low + (high - low) * u).astype(dtype))


def normal(
    n: int, mean: float, std: float, seed: int, offset: int, dtype: DTypeLike = np.float32
) -> NDArray[Any]:
    """Return mean + std z in double, rounded to dtype; z = +-Phi^-1(1 - p) of two words.

    The top bit of the 64 is the sign, the other 63 are k, and p = (k + 1/2) / 2^64.
    """
    high, low = random_words(2 * n, seed, offset).astype(np.uint64).reshape(-1, 2).T
    k = (high << _32 | low) & np.uint64(2**63 - 1)
    p = (k.astype(np.float64) + 0.5) * 2.0**-64
    tail = np.array([-NormalDist().inv_cdf(value) for value in p], np.float64)
    return np.asarray((mean + std * np.where(high >> np.uint64(31), -tail, tail)).astype(dtype))


@quiet()
def dropout(
    input: ArrayLike, p: float = 0.5, training: bool = True, *, seed: int, offset: int = 0
) -> Array:
    """Return x_i m_i: m = 1 / (1 - p) where word i >= round(p 2^32), else 0; x if not training."""
    x = f64(input)
    if not training:
        return np.array(x)
    kept = random_words(x.size, seed, offset).reshape(x.shape) >= np.uint64(round(p * 2**32))
    return np.asarray(x * np.where(kept, 1 / np.float64(1.0 - p), 0.0))


def dropout_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    p: float = 0.5,
    training: bool = True,
    *,
    seed: int,
    offset: int = 0,
) -> Array:
    """Return dx = dropout(dy) with the same mask: the op is linear and diagonal."""
    return dropout(grad_output, p, training, seed=seed, offset=offset)
