# SPDX-License-Identifier: MIT
"""Rung 10: every tile, pieces of k, every way for c to leave."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from half_inputs import BFLOAT16, FLOAT16, Half, bits, every_half, normal, once
from helpers import Array, Device, assert_close, assert_same_bits
from linear_inputs import ACTIVATIONS, IDS
from matmul_inputs import TRANSPOSES, swapped
from tilegrad import backends

pytestmark = pytest.mark.not_on_cpu("the ladder is the GPU's")

EPS = float(np.finfo(np.float32).eps)

# (m, n, k), see test_matmul_hopper_choice.py: each tile; tails of m, n and k; sums that wrap each
# ring; more tiles than blocks, so that the ring and the boxes go on into the next tile; a pair of
# tiles of which one is outside c; pieces of k that end inside a step, and whose last is shorter.
SHAPES = [
    (64, 72, 40), (40, 264, 72), (136, 128, 456), (200, 136, 72), (136, 264, 328), (520, 512, 72),
    (648, 264, 136), (40, 104, 1000), (8, 16, 328), (56, 120, 840), (72, 200, 1096), (16, 1032, 64),
]  # fmt: skip


def on_hopper(device: Device) -> bool:
    place = backends.place_of(device.name)
    major, minor = backends.at(place).properties(place)["compute_capability"]
    return (major, minor) == (9, 0)


@pytest.fixture(autouse=True)
def _needs_hopper(device: Device) -> None:
    if not on_hopper(device):
        pytest.skip("wgmma needs compute capability 9.0")


@every_half
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_tile_and_layout_follows_float64(
    device: Device, half: Half, shape: tuple[int, int, int], rng: np.random.Generator
) -> None:
    m, n, k = shape
    # A large common offset, so that a lost or doubled step of k is far outside the bound.
    a, b = half.round(16 + normal(rng, half, (m, k))), half.round(normal(rng, half, (k, n)) - 3)
    want = a @ b
    inside = (k + 1) * EPS * (np.abs(a) @ np.abs(b))
    results = []
    for ta, tb in TRANSPOSES:
        left, right = half.put(device, swapped(a, ta)), half.put(device, swapped(b, tb))
        c = tg.matmul(left, right, transpose_a=ta, transpose_b=tb, variant="hopper")
        assert_close(half.get(c), want, once(half, want, inside), what=f"{ta}, {tb}")
        results.append(bits(c))
    for other in results[1:]:
        assert_same_bits(other, results[0], what="another layout")
    # c where the copy engine cannot write it.
    moved = half.put(device, np.zeros((m, n)), offset=1)
    tg.matmul(half.put(device, a), half.put(device, b), variant="hopper", out=moved)
    assert_same_bits(bits(moved), results[0], what="c at another address")


@every_half
def test_batches_and_operands_that_all_share(
    device: Device, half: Half, rng: np.random.Generator
) -> None:
    for m, n, k in ((72, 136, 72), (8, 40, 520)):
        a, b = normal(rng, half, (3, m, k)), normal(rng, half, (3, k, n))
        for left, right in ((a, b), (a, b[1]), (a[1], b)):
            want = left @ right
            inside = (k + 1) * EPS * (np.abs(left) @ np.abs(right))
            c = tg.matmul(half.put(device, left), half.put(device, right), variant="hopper")
            assert_close(half.get(c), want, once(half, want, inside))


@every_half
def test_nan_stays_in_its_row_and_column(
    device: Device, half: Half, rng: np.random.Generator
) -> None:
    # Every tile is part empty: the zeros there must not meet an infinity.
    for m, n, k in ((72, 264, 88), (40, 104, 1000)):
        a, b = normal(rng, half, (m, k)), normal(rng, half, (k, n))
        put = [half.put(device, x) for x in (a, b)]
        clean = bits(tg.matmul(*put, variant="hopper"))
        a[m - 1, k - 1], b[k - 1, n - 1] = np.nan, np.inf
        c = tg.matmul(half.put(device, a), half.put(device, b), variant="hopper")
        got = half.get(c)
        assert np.isnan(got[m - 1]).all()
        assert not np.isfinite(got[:, n - 1]).any()
        assert_same_bits(bits(c)[: m - 1, : n - 1], clean[: m - 1, : n - 1])


@pytest.mark.parametrize(("name", "args", "function", "_from_output"), ACTIVATIONS, ids=IDS)
def test_the_epilogue_has_the_same_bits_on_every_way(
    device: Device, name: str | None, args: Any, function: Any, _from_output: bool,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """By the copy engine, with z beside c, element by element, from pieces, and on rung 9's way."""
    half = BFLOAT16 if name in (None, "relu", "gelu") else FLOAT16
    for rows, inputs, outputs in ((200, 72, 152), (40, 1000, 56)):
        assert rows * inputs * outputs >= 2**21, "too small for this rung"
        x, weight = normal(rng, half, (rows, inputs)), normal(rng, half, (outputs, inputs)) / 16
        bias = normal(rng, half, (outputs,))
        there = [half.put(device, v) for v in (x, weight, bias)]
        y = tg.linear(*there, name, activation_args=args)
        again, z = tg.linear(*there, name, activation_args=args, save_preactivation=True)
        assert_same_bits(bits(again), bits(y), what="y beside z")
        weight = half.round(weight)
        want = x @ weight.T + bias
        inside = (inputs + 2) * EPS * (np.abs(x) @ np.abs(weight.T) + np.abs(bias))
        assert_close(half.get(z), want, once(half, want, inside), what="z")
        moved = half.put(device, np.zeros((rows, outputs)), offset=3)
        tg.linear(*there, name, activation_args=args, out=moved)
        assert_same_bits(bits(moved), bits(y), what="y at another address")


def test_gradients_of_weights_add_up_in_float32(device: Device, rng: np.random.Generator) -> None:
    """The sum over many rows is cut into pieces; beta and the float result meet it at their end."""
    half = BFLOAT16
    for rows, inputs, outputs in ((1000, 56, 40), (1096, 200, 72)):
        x, dy = normal(rng, half, (rows, inputs)), normal(rng, half, (rows, outputs))
        weight = half.put(device, np.zeros((outputs, inputs)))
        there = [half.put(device, v) for v in (dy, x)]
        start = rng.standard_normal((outputs, inputs)).astype(np.float32)
        for accumulate in (False, True):
            out = (None, device.put(start.copy()), None)
            tg.linear_backward(*there, weight, wrt="weight", accumulate=accumulate, out=out)
            before = start if accumulate else 0 * start
            bound = (rows + 3) * EPS * (np.abs(dy).T @ np.abs(x) + np.abs(before))
            assert_close(device.get(out[1]), dy.T @ x + before, bound, what=f"{accumulate}")


@every_half
@pytest.mark.parametrize("shape", [(263, 259, 67), (257, 264, 71), (264, 257, 72)], ids=str)
def test_odd_sizes_are_copied_to_where_the_engine_reads(
    device: Device, half: Half, shape: tuple[int, int, int], rng: np.random.Generator
) -> None:
    m, n, k = shape
    assert (
        backends.at(backends.SIM)._matmul_choice(1, m, n, k, 2, 90, False, False, False) == "hopper"
    )
    a, b = normal(rng, half, (m, k)), normal(rng, half, (k, n))
    want = a @ b
    inside = (k + 1) * EPS * (np.abs(a) @ np.abs(b))
    first = None
    for (ta, tb), offset in zip(TRANSPOSES, (0, 1, 8, 3), strict=True):
        left = half.put(device, swapped(a, ta), offset)
        right = half.put(device, swapped(b, tb), offset)
        c = tg.matmul(left, right, transpose_a=ta, transpose_b=tb)
        assert_close(half.get(c), want, once(half, want, inside), what=f"{ta}, {tb}")
        first = bits(c) if first is None else first
        assert_same_bits(bits(c), first, what="another layout and address")


def test_the_same_bits_again(device: Device, rng: np.random.Generator) -> None:
    a, b = (normal(rng, FLOAT16, s) for s in ((72, 1096), (1096, 200)))
    put: list[Any] = [FLOAT16.put(device, x) for x in (a, b)]
    results: list[Array] = [bits(tg.matmul(*put, variant="hopper")) for _ in range(3)]
    for other in results[1:]:
        assert_same_bits(other, results[0])


def test_one_odd_operand_of_many_uses_is_copied(device: Device, rng: np.random.Generator) -> None:
    """The weight gradient of a layer with ten outputs: dz has lines of 20 bytes, x is whole."""
    m, n, k = 10, 256, 1024
    assert (
        backends.at(backends.SIM)._matmul_choice(1, m, n, k, 2, 90, False, False, True) == "hopper"
    )
    dz, x = normal(rng, FLOAT16, (k, m)), normal(rng, FLOAT16, (k, n))
    want = dz.T @ x
    inside = (k + 1) * EPS * (np.abs(dz).T @ np.abs(x))
    c = tg.matmul(FLOAT16.put(device, dz), FLOAT16.put(device, x), transpose_a=True)
    assert_close(FLOAT16.get(c), want, once(FLOAT16, want, inside))
