# SPDX-License-Identifier: MIT
"""Rung 12: float32 as tf32 by wgmma; every tile, pieces of k, every way for c to leave."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from half_inputs import FLOAT16, normal
from helpers import Array, Device, assert_close, assert_same_bits, error
from linear_inputs import ACTIVATIONS
from matmul_inputs import TRANSPOSES, mixed, swapped
from tilegrad import backends

RUNG = "hopper_tf32"
EPS = float(np.finfo(np.float32).eps)
LEFT_OUT = 2**-10 + 2**-20  # of two operands rounded to 11 bits

# (m, n, k), see test_matmul_hopper_choice.py: each tile; one element; tails of m, n and k; sums
# that wrap each ring; more tiles than blocks; a pair of tiles of which one is outside c; pieces of
# k that end inside a step, and whose last is shorter.
SHAPES = [
    (1, 1, 4), (64, 70, 20), (40, 261, 36), (136, 128, 228), (200, 134, 36), (136, 264, 164),
    (520, 512, 36), (648, 257, 68), (40, 101, 500), (8, 16, 164), (56, 120, 420), (72, 199, 548),
    (16, 1032, 32),
]  # fmt: skip

pytestmark = pytest.mark.not_on_cpu("the ladder is the GPU's")


@pytest.fixture
def hopper_device(device: Device) -> Device:
    place = backends.place_of(device.name)
    if backends.at(place).properties(place)["compute_capability"] != (9, 0):
        pytest.skip("wgmma is compute capability 9.0's")
    return device


def multiply(device: Device, a: Array, b: Array, ta: bool = False, tb: bool = False) -> Array:
    left, right = device.put(swapped(a, ta)), device.put(swapped(b, tb))
    return device.get(tg.matmul(left, right, transpose_a=ta, transpose_b=tb, variant=RUNG))


def exact(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return normal numbers of 11 bits, which tf32 holds."""
    return normal(rng, FLOAT16, shape).astype(np.float32)


def wide(a: Array, b: Array) -> tuple[Array, Array]:
    """Return the product and the sums of magnitudes in float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return a @ b, np.abs(a) @ np.abs(b)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_tile_and_layout_follows_float64(
    hopper_device: Device, shape: tuple[int, int, int], rng: np.random.Generator
) -> None:
    m, n, k = shape
    # A large common offset, so that a lost or doubled step of k is far outside the bound.
    a, b = (16 + exact(rng, (m, k))).round(4), exact(rng, (k, n)) - 3
    a, b = (x.astype(np.float16).astype(np.float32) for x in (a, b))
    want, magnitude = wide(a, b)
    first = multiply(hopper_device, a, b, tb=True)  # as the engine reads them
    assert_close(first, want, (k + 1) * EPS * magnitude)
    for ta, tb in TRANSPOSES if m * n < 10_000 else TRANSPOSES[:1]:
        assert_same_bits(multiply(hopper_device, a, b, ta, tb), first, what=f"{ta}, {tb}")
    # c where the copy engine cannot write it, if it could before.
    moved = hopper_device.put(np.zeros((m, n), np.float32), 1)
    operands = hopper_device.put(a), hopper_device.put(swapped(b, True))
    tg.matmul(*operands, transpose_b=True, variant=RUNG, out=moved)
    assert_same_bits(hopper_device.get(moved), first, what="c at another address")
    again = mixed(rng, (m, k), np.float32)
    want, magnitude = wide(again, b)
    assert_close(multiply(hopper_device, again, b), want, (LEFT_OUT + (k + 1) * EPS) * magnitude)


def test_operands_at_any_address_and_in_batches(
    hopper_device: Device, rng: np.random.Generator
) -> None:
    for m, n, k in ((20, 24, 36), (8, 40, 260)):
        a, b = mixed(rng, (3, m, k), np.float32), mixed(rng, (3, k, n), np.float32)
        want = multiply(hopper_device, a, b, tb=True)
        moved = [hopper_device.put(x, 1) for x in (a, swapped(b, True))]
        got = tg.matmul(*moved, transpose_b=True, variant=RUNG)
        assert_same_bits(hopper_device.get(got), want)
        for left, right in ((a, b[1]), (a[1], b)):
            shared = multiply(hopper_device, left, right, tb=True)
            product, magnitude = wide(left, right)
            assert_close(shared, product, (LEFT_OUT + (k + 1) * EPS) * magnitude)


def test_a_layer_has_the_same_bits_on_every_way(
    hopper_device: Device, rng: np.random.Generator
) -> None:
    """By the copy engine, with z beside y, and element by element; from pieces."""
    for rows, inputs, outputs in ((200, 68, 156), (40, 1000, 57)):
        check_layer(hopper_device, rows, inputs, outputs, rng)


def check_layer(
    device: Device, rows: int, inputs: int, outputs: int, rng: np.random.Generator
) -> None:
    chosen = backends.at(backends.SIM)._matmul_choice
    assert chosen(1, rows, outputs, inputs, 4, 90, True, True, True, "medium", True) == RUNG
    x, weight = exact(rng, (rows, inputs)), exact(rng, (outputs, inputs))
    bias = exact(rng, (outputs,))
    there = [device.put(v) for v in (x, weight, bias)]
    product, magnitude = wide(x, weight.T)
    bound = (inputs + 2) * EPS * (magnitude + np.abs(bias))
    tg.set_float32_matmul_precision("medium")
    try:
        for name, args, _, _ in (ACTIVATIONS[0], ACTIVATIONS[4], ACTIVATIONS[3]):
            y = device.get(tg.linear(*there, name, activation_args=args))
            again, z = tg.linear(*there, name, activation_args=args, save_preactivation=True)
            assert_same_bits(device.get(again), y, what=f"{name} beside z")
            assert_close(device.get(z), product + bias, bound, what=f"z of {name}")
            moved = device.put(np.zeros((rows, outputs), np.float32), 3)
            tg.linear(*there, name, activation_args=args, out=moved)
            assert_same_bits(device.get(moved), y, what=f"{name} at another address")
    finally:
        tg.set_float32_matmul_precision("highest")


def test_the_copy_engine_rounds_to_even_and_wgmma_does_not_round(hopper_device: Device) -> None:
    step = 2.0**-10  # of tf32 between 1 and 2
    x = np.zeros((8, 4), np.float32)
    x[:, 1] = [1 + step / 2, 1 + 3 * step / 2, 1 + step / 2 + 2**-23, 2 - 2**-23, -1 - step / 2,
               np.inf, -np.inf, np.nan]  # fmt: skip
    got = multiply(hopper_device, x, np.ones((4, 8), np.float32))
    want = [1, 1 + 2 * step, 1 + step, 2, -1, np.inf, -np.inf, np.nan]
    np.testing.assert_array_equal(got, np.repeat(np.array(want, np.float32)[:, None], 8, axis=1))


def test_a_nan_in_the_bits_that_are_not_read_counts_as_infinite(hopper_device: Device) -> None:
    """The documented exception: arithmetic does not make such a NaN."""
    x = np.zeros((4, 4), np.uint32)
    x[:, 0] = [0x7F800001, 0xFF801FFF, 0x7F802000, 0x7FC00000]
    got = multiply(hopper_device, x.view(np.float32), np.ones((4, 8), np.float32))
    want = np.array([np.inf, -np.inf, np.nan, np.nan], np.float32)
    np.testing.assert_array_equal(got, np.repeat(want[:, None], 8, axis=1))


def test_nan_and_infinity_stay_in_their_rows_and_columns(
    hopper_device: Device, rng: np.random.Generator
) -> None:
    # Every tile is part empty: the zeros there must not meet an infinity.
    for m, n, k in ((72, 261, 44), (40, 101, 500)):
        a, b = exact(rng, (m, k)), exact(rng, (k, n))
        clean = multiply(hopper_device, a, b, tb=True)
        a[m - 1, k - 1], b[k - 1, n - 1] = np.nan, np.inf
        got = multiply(hopper_device, a, b, tb=True)
        assert np.isnan(got[m - 1]).all()
        assert not np.isfinite(got[:, n - 1]).any()
        assert_same_bits(got[: m - 1, : n - 1], clean[: m - 1, : n - 1])


@pytest.mark.parametrize(
    ("dtype", "k", "capability", "words"),
    [
        ("float64", 8, (9, 0), ("float32; got float64",)),
        ("float16", 8, (7, 5), ("float32; got float16",)),
        ("float32", 8, (8, 0), ("compute capability 9.0; got 8.0",)),
        ("float32", 6, (9, 0), ("k a multiple of 4", "got 6")),
        ("float32", 0, (9, 0), ("k a multiple of 4", "got 0")),
    ],
)
def test_the_error_says_which_condition_fails(
    device: Device, dtype: str, k: int, capability: tuple[int, int], words: tuple[str, ...]
) -> None:
    place = backends.place_of(device.name)
    module: Any = backends.at(place)
    here = module.properties(place)["compute_capability"]
    if device.name == "sim":
        module._set_compute_capability(10 * capability[0] + capability[1])
    elif here != capability:
        pytest.skip("another device")
    x, y = (device.put(np.ones(s, dtype)) for s in ((8, k), (k, 8)))
    try:
        with error(ValueError, "matmul", f"variant '{RUNG}' needs ", *words):
            tg.matmul(x, y, variant=RUNG)
    finally:
        if device.name == "sim":
            module._set_compute_capability(10 * here[0] + here[1])
