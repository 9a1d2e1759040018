# SPDX-License-Identifier: MIT
"""matmul: what it refuses, and with which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from helpers import (
    FLOATS,
    bad_outs,
    error,
)


@pytest.mark.parametrize(
    ("shape_a", "shape_b", "options"),
    [
        ((3, 4), (5, 2), {}),
        ((3, 4), (3, 4), {}),
        ((3, 4), (4, 3), {"transpose_a": True}),
        ((3, 4), (4, 3), {"transpose_b": True}),
        ((3,), (4,), {}),
        ((2, 3, 4), (3, 4, 5), {}),
        ((2, 3, 4), (5, 4, 2), {}),
        ((3,), (3, 4), {"transpose_a": True}),
        ((4, 3), (3,), {"transpose_b": True}),
        ((), (3, 4), {}),
        ((3, 4), (), {}),
    ],
)
def test_matmul_refuses_shapes(shape_a: Any, shape_b: Any, options: dict[str, bool]) -> None:
    with error(ValueError, "matmul", "("):
        tg.matmul(np.ones(shape_a), np.ones(shape_b), **options)


def test_matmul_error_names_rule_and_values() -> None:
    with error(ValueError, "matmul", "inner sizes", "(3, 4)", "(5, 2)"):
        tg.matmul(np.ones((3, 4)), np.ones((5, 2)))
    with error(ValueError, "matmul", "batch", "2", "3"):
        tg.matmul(np.ones((2, 3, 4)), np.ones((3, 4, 5)))
    with error(TypeError, "matmul", "float32", "float64"):
        tg.matmul(np.ones((3, 4), np.float32), np.ones((4, 2)))


@pytest.mark.parametrize("dtype", FLOATS)
def test_matmul_refuses_out(dtype: Any) -> None:
    a, b = np.ones((3, 4), dtype), np.ones((4, 5), dtype)
    for name, (out, kind, part) in bad_outs((3, 5), dtype).items():
        with error(kind, "matmul", "out", part):
            tg.matmul(a, b, out=out)
            pytest.fail(f"accepted out with another {name}")


def test_matmul_refuses_out_that_overlaps() -> None:
    square = np.ones((4, 4))
    for a, b, out in [
        (square, np.ones((4, 4)), square),
        (np.ones((4, 4)), square, square),
        (square[::-1], np.ones((4, 4)), square),
        (square[:, :1], np.ones((1, 4)), square),
        (square.T, np.ones((4, 4)), square),
    ]:
        with error(ValueError, "matmul", "out", "overlap"):
            tg.matmul(a, b, out=out)
    memory = np.ones(20)
    with error(ValueError, "matmul", "out", "overlap"):
        tg.matmul(memory[:8].reshape(4, 2), np.ones((2, 2)), out=memory[7:15].reshape(4, 2))
    # neighbours are no overlap
    beside = tg.matmul(memory[:8].reshape(4, 2), np.ones((2, 2)), out=memory[8:16].reshape(4, 2))
    np.testing.assert_array_equal(beside, np.full((4, 2), 2.0))
