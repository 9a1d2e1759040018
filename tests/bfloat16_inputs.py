# SPDX-License-Identifier: MIT
"""What the tests of bfloat16 products multiply, and what must hold on every instruction set."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

import tilegrad as tg
from half_inputs import BFLOAT16, once
from helpers import Array, aligned, assert_close, assert_same_bits, guarded_out, layouts
from matmul_inputs import TRANSPOSES, swapped

EPS = float(np.finfo(np.float32).eps)
TINY = float(np.finfo(np.float32).tiny)
# One below, at and above the tiles of every instruction set, and half and twice of them.
EDGES = (1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65)
# Odd last steps, whole and broken pairs, tiles of 32 steps, blocks of 512.
STEPS = (0, 1, 2, 3, 31, 32, 33, 63, 64, 65, 511, 512, 513, 1025)
# Beyond 128 rows B is packed once for all tasks; (m, n, k) at the borders of that, of a task's
# sums and of a block of columns.
BLOCKS = [
    (127, 40, 65), (128, 33, 513), (129, 40, 65), (257, 70, 520), (600, 17, 40), (130, 513, 40),
    (129, 1030, 33), (1, 600, 700), (5, 129, 1100), (14, 65, 64), (15, 65, 64), (385, 520, 17),
    (129, 930, 513),
]  # fmt: skip
NAMES = ("C", "offset 1", "offset 3", "gapped", "negative strides", "fortran order", "padded rows")


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape).astype(ml_dtypes.bfloat16)


def wide(x: Array) -> Array:
    return x.astype(np.float64)


def product_bound(a: Array, b: Array, want: Array, added: Any = 0.0) -> Array:
    """Half a spacing of the result and what k float32 multiply-adds err; `added` to |a| |b|.

    A sum of flushed subnormal terms errs by less than `TINY` each.
    """
    k = a.shape[-1]
    return once(BFLOAT16, want, (k + 2) * (EPS * (np.abs(a) @ np.abs(b) + added) + TINY))


def check_product(m: int, n: int, k: int, rng: np.random.Generator) -> None:
    """One rounding of a float32 sum, nothing written outside, the same bits for any alignment."""
    a, b = normal(rng, (m, k)), normal(rng, (k, n))
    want = wide(a) @ wide(b)
    bound = product_bound(wide(a), wide(b), want)
    for ta, tb in TRANSPOSES:
        results = []
        for offset in (0, 3):
            left, right = aligned(swapped(a, ta), offset), aligned(swapped(b, tb), offset)
            with guarded_out((m, n), ml_dtypes.bfloat16, offset) as out:
                tg.matmul(left, right, transpose_a=ta, transpose_b=tb, out=out)
            results.append(out)
        what = f"({m}, {k}) x ({k}, {n}), transposed {ta}, {tb}"
        assert_close(results[0], want, bound, what=what)
        assert_same_bits(results[1], results[0], what=f"{what}, unaligned")


def check_layouts(rng: np.random.Generator, sizes: tuple[int, int, int]) -> None:
    """Strides do not show in the bits, nor does what lies between the elements."""
    m, n, k = sizes
    a, b = normal(rng, (m, k)), normal(rng, (k, n))
    want = tg.matmul(a, b)
    of_a, of_b = {"C": a, **layouts(a)}, {"C": b, **layouts(b)}
    for left in NAMES:
        for right in NAMES:
            assert_same_bits(
                tg.matmul(of_a[left], of_b[right]), want, what=f"a {left}, b {right} of {sizes}"
            )


def check_batches(rng: np.random.Generator) -> None:
    """Each matrix of a batch has the bits that it has alone, broadcast or not."""
    for a_shape, b_shape in [
        ((3, 17, 33), (3, 33, 20)),
        ((5, 16, 32), (32, 48)),
        ((2, 40), (4, 40, 7)),
    ]:
        a, b = normal(rng, a_shape), normal(rng, b_shape)
        c = tg.matmul(a, b)
        for i in range(c.shape[0]):
            alone = tg.matmul(a[i] if a.ndim > 2 else a, b[i] if b.ndim > 2 else b)
            assert_same_bits(c[i], alone, what=f"matrix {i} of {a_shape} x {b_shape}")


def check_linear(rng: np.random.Generator, rows: int, inputs: int, outputs: int) -> None:
    """Bias and activation meet the float32 sum; z is rounded where it is stored."""
    x, w, bias = (
        normal(rng, (rows, inputs)),
        normal(rng, (outputs, inputs)),
        normal(rng, (outputs,)),
    )
    y, z = tg.linear(x, w, bias, "relu", save_preactivation=True)
    want = wide(x) @ wide(w).T + wide(bias)
    bound = product_bound(wide(x), wide(w).T, want, np.abs(wide(bias)))
    assert_close(z, want, bound, what="z")
    assert_close(y, np.maximum(want, 0), bound, what="y")
    # from the rounded z, tanh would err by up to 2^-9 |z|
    y = tg.linear(x / 4, w / 4, bias, "tanh")
    z_wide = wide(x) @ wide(w).T / 16 + wide(bias)
    inside = (inputs + 8) * (EPS * (np.abs(wide(x)) @ np.abs(wide(w)).T / 16 + 8) + TINY)
    assert_close(y, np.tanh(z_wide), once(BFLOAT16, np.tanh(z_wide), inside), what="tanh")


def check_linear_backward(rng: np.random.Generator, rows: int, inputs: int, outputs: int) -> None:
    """float32 gradients of weights are not rounded to bfloat16, and may be added to."""
    x, w = normal(rng, (rows, inputs)), normal(rng, (outputs, inputs))
    bias, dz = normal(rng, (outputs,)), normal(rng, (rows, outputs))
    dx = np.empty_like(x)
    before = rng.standard_normal((outputs, inputs)).astype(np.float32)
    dw, db = before.copy(), np.zeros(outputs, np.float32)
    tg.linear_backward(dz, x, w, bias, accumulate=True, out=(dx, dw, db))
    want = wide(dz) @ wide(w)
    assert_close(dx, want, product_bound(wide(dz), wide(w), want), what="dx")
    want = wide(before) + wide(dz).T @ wide(x)
    size = np.abs(wide(before)) + np.abs(wide(dz)).T @ np.abs(wide(x))
    assert_close(dw, want, (rows + 2) * (EPS * size + TINY), what="dweight")
    want, size = wide(dz).sum(0), np.abs(wide(dz)).sum(0)
    assert_close(db, want, (rows + 2) * EPS * size, what="dbias")
    again = tg.linear_backward(dz, x, w, bias)
    want = wide(dz).T @ wide(x)
    bound = product_bound(wide(dz).T, wide(x), want)
    assert_close(again[1], want, bound, what="dweight in bfloat16")
    assert_same_bits(again[0], dx, what="dx")


def check_special_values() -> None:
    """Infinity and NaN reach their row or column, and nothing else; the last steps are padded."""
    for k in (1, 5, 33, 520):
        a, b = np.ones((18, k), ml_dtypes.bfloat16), np.ones((k, 35), ml_dtypes.bfloat16)
        a[3, k - 1], b[0, 34] = np.inf, np.nan
        want = np.full((18, 35), BFLOAT16.round(np.array(float(k))))
        want[3], want[:, 34] = np.inf, np.nan
        assert_close(tg.matmul(a, b), want, 0.0, what=f"k = {k}")
        assert_close(tg.matmul(a, b.T.copy(), transpose_b=True), want, 0.0, what=f"k = {k}, NT")


def check_threads(rng: np.random.Generator) -> None:
    """The number of threads does not show in the bits."""
    for m, n, k in [(40, 200, 70), (200, 130, 520), (300, 20, 64), (1, 300, 600)]:
        a, b = normal(rng, (m, k)), normal(rng, (k, n))
        results = []
        for count in (1, 2, 3):
            tg.set_num_threads(count)
            results += [tg.matmul(a, b), tg.matmul(a, b.T.copy().T)]
        for result in results[1:]:
            assert_same_bits(result, results[0], what=f"{(m, n, k)}")
