# SPDX-License-Identifier: MIT
"""Rows that the cpu works on side by side, as lanes of a vector, and results past the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from helpers import FLOATS, Array, assert_close, assert_same_bits
from softmax_oracle import (
    backward,
    bound,
    every_dtype,
    every_name,
    expected_gradient,
    expected_of,
    forward,
    gradient_bound,
)

# A group is 4 vectors of 2 to 16 lanes; a chunk of a thread 64 rows.
ROWS = (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129)
CLASSES = (1, 2, 10, 16, 17, 64, 65, 128, 129)


def logits(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return logits with rows that need care: a maximum of 90, -inf entries, a NaN."""
    x = (rng.standard_normal(shape) * 4).astype(dtype)
    flat = x.reshape(-1)
    flat[rng.integers(0, flat.size, 1 + flat.size // 50)] = -np.inf
    flat[rng.integers(0, flat.size, 1 + flat.size // 100)] = 90
    return x


@every_name
@every_dtype
@pytest.mark.parametrize("classes", CLASSES)
def test_a_row_of_a_group_is_as_it_is_alone(
    isa: str, name: str, classes: int, dtype: Any, rng: np.random.Generator
) -> None:
    for rows in ROWS:
        x = logits(rng, (rows, classes), dtype)
        x[rows // 2, classes // 2] = np.nan  # stays in its row
        x[rows // 2 + 1 :, classes // 2] = 1  # no other row is -inf alone, and so NaN
        x[: rows // 2, classes // 2] = 1
        y = forward(name)(x, 1)
        nan = np.arange(rows) == rows // 2
        assert np.array_equal(np.isnan(y), np.repeat(nan[:, None], classes, 1))
        expected = expected_of(name, x[~nan], 1)
        assert_close(y[~nan], expected, bound(name, x[~nan], 1, expected), what=f"{rows} rows")
        for row in {0, rows // 3, rows - 1}:
            assert_same_bits(forward(name)(x[row : row + 1], 1), y[row : row + 1])
        assert_same_bits(forward(name)(x, 1, out=x), y, what="in place")


@every_name
@every_dtype
@pytest.mark.parametrize("inner", [2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100])
def test_columns_of_many_matrices_share_groups(
    isa: str, name: str, inner: int, dtype: Any, rng: np.random.Generator
) -> None:
    for outer, classes in [(1, 5), (2, 130), (13, 20), (70, 3)]:
        shape = (outer, classes, inner)
        x = (rng.standard_normal(shape) * 4).astype(dtype)
        dy = rng.standard_normal(shape).astype(dtype)
        y, expected = forward(name)(x, 1), expected_of(name, x, 1)
        assert_close(y, expected, bound(name, x, 1, expected), what=f"{shape}")
        assert_same_bits(forward(name)(x[-1:], 1), y[-1:], what=f"the last of {shape}")
        dx = backward(name)(dy, x, 1, output=y)
        gradient = expected_gradient(name, dy, x, 1)
        assert_close(dx, gradient, gradient_bound(name, dy, x, 1), what=f"dx of {shape}")
        assert_same_bits(backward(name)(dy, x, 1, output=y, out=dy), dx, what="dx in place")
        assert_same_bits(forward(name)(x, 1, out=x), y, what=f"{shape} in place")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", [10, 1000, 40_001])
def test_large_results_have_the_bits_of_small_ones(
    isa: str, classes: int, dtype: Any, rng: np.random.Generator
) -> None:
    rows = (34 << 20) // (classes * np.dtype(dtype).itemsize)  # they are written past the cache
    x = rng.standard_normal((rows, classes)).astype(dtype)
    target = rng.integers(0, classes, rows)
    space = np.empty(x.size + 3, dtype)
    out = space[3:].reshape(x.shape)  # a row begins anywhere in a cache line
    some = np.r_[0:3, rows // 2 : rows // 2 + 3, rows - 3 : rows]
    for log in (False, True):
        name = "log_softmax" if log else "softmax"
        space[:3] = 7
        forward(name)(x, 1, out=out)
        assert_same_bits(out[some], forward(name)(x[some], 1), what=name)
        y = out[some].copy()
        dx = backward(name)(x, x, 1, output=out)
        assert_same_bits(dx[some], backward(name)(x[some], x[some], 1, output=y), what=f"{name} dx")
        assert (space[:3] == 7).all()
    value = tg.cross_entropy_value_and_grad
    loss, dx = value(x, target, reduction="none")
    want, want_dx = value(x[some], target[some], reduction="none")
    assert_same_bits(loss[some], want)
    assert_same_bits(dx[some], want_dx, what="cross_entropy dx")
    tg.set_num_threads(2)
    assert_same_bits(value(x, target, reduction="none")[1], dx, what="two threads")
