# SPDX-License-Identifier: MIT
"""Which tile and how many pieces of k rungs 10 and 12 take: a pure function, no launch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from test_matmul_hopper import SHAPES
from test_matmul_hopper_tf32 import SHAPES as TF32_SHAPES
from tilegrad import backends

SIM_MULTIPROCESSORS, H200_MULTIPROCESSORS = 4, 132
TILES = ((64, 128), (128, 128), (128, 256))


def choice(
    m: int, n: int, k: int, *, batch: int = 1, on: int = SIM_MULTIPROCESSORS, size: int = 2
) -> Any:
    return backends.at(backends.SIM)._hopper_choice(batch, m, n, k, on, size)


@pytest.mark.parametrize(("shapes", "size"), [(SHAPES, 2), (TF32_SHAPES, 4)])
def test_the_shapes_of_the_tests_meet_every_tile_and_pieces(shapes: Any, size: int) -> None:
    met = {choice(*shape, size=size) for shape in shapes}
    assert {(m, n) for m, n, _ in met} == set(TILES)
    assert {pieces for *_, pieces in met} >= {1, 2, 3, 4}


def model(
    shape: tuple[int, int, int, int], tile: tuple[int, int], pieces: int, on: int, size: int
) -> int:
    """Return the cycles that hopper_choice.hpp states, written again."""
    batch, m, n, k = shape
    blocks = 2 if tile[1] == 256 else 1
    clusters = batch * -(-m // (tile[0] * blocks)) * -(-n // tile[1]) * pieces
    turns = -(-clusters // (on // blocks))
    in_all = -(-k * size // 128)
    steps = -(-in_all // pieces)
    fetched = (min(m, tile[0]) + min(n, tile[1]) // blocks) * 128
    area = tile[0] * tile[1]
    at_work = turns * (steps * max(area // 32, fetched // 36) + area // 64 * size)
    memory = batch * (m * k + k * n + m * n) * size // 2400
    join = 0 if pieces == 1 else 3000 + 2 * (batch * m * n * 4 * pieces) // 4000
    return 1500 + max(at_work, memory) + join


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("on", [1, SIM_MULTIPROCESSORS, 114, H200_MULTIPROCESSORS])
def test_the_choice_is_the_fastest_by_the_model(
    on: int, size: int, rng: np.random.Generator
) -> None:
    sim = backends.at(backends.SIM)
    shapes = [tuple(int(2**e) for e in rng.uniform((0, 0, 3, 6), (5, 13, 13, 16)))
              for _ in range(200)]  # fmt: skip
    shapes += [(1, 512, 512, 65536), (1, 4096, 4096, 4096), (1, 1, 4096, 4096)]
    for shape in shapes:
        tile_m, tile_n, pieces = sim._hopper_choice(*shape, on, size)
        got = model(shape, (tile_m, tile_n), pieces, on, size)
        assert got == sim._hopper_cycles(*shape, on, tile_m, tile_n, pieces, size)
        batch, m, n, k = shape
        best = got
        for tile, each in itertools.product(TILES, range(1, 65)):
            blocks = 2 if tile[1] == 256 else 1
            items = batch * -(-m // (tile[0] * blocks)) * -(-n // tile[1]) * each * blocks
            possible = each == 1 or (items <= on and -(-k * size // 128) >= 4 * each)
            if blocks <= on and possible:
                best = min(best, model(shape, tile, each, on, size))
        # Not every number of pieces is tried.
        assert got <= 1.25 * best, shape


@pytest.mark.parametrize(
    ("batch", "m", "n", "k", "expected"),
    [
        (1, 8192, 8192, 8192, (128, 256, 1)),
        (1, 4096, 4096, 4096, (128, 256, 1)),
        (1, 65536, 512, 512, (128, 256, 1)),
        (1, 512, 512, 65536, (128, 256, 16)),  # dW of a layer
        (1, 1024, 1024, 1024, (64, 128, 1)),  # a tile for each of 128 multiprocessors
        (1, 16, 4096, 4096, (64, 128, 3)),  # few rows: bound by reading b
        (1, 64, 16384, 4096, (64, 128, 1)),
        (64, 128, 128, 128, (64, 128, 1)),  # bound by memory: the smallest tile
    ],
)
def test_the_choice_on_an_h200(
    batch: int, m: int, n: int, k: int, expected: tuple[int, int, int]
) -> None:
    assert choice(m, n, k, batch=batch, on=H200_MULTIPROCESSORS) == expected


@pytest.mark.parametrize(
    ("m", "n", "k", "expected"),
    [
        (4096, 4096, 4096, (128, 256, 1)),
        (512, 512, 65536, (128, 256, 16)),
        (1024, 1024, 4096, (128, 256, 4)),
        (16, 4096, 4096, (64, 128, 3)),  # few rows: bound by reading b
    ],
)
def test_the_choice_of_floats_on_an_h200(
    m: int, n: int, k: int, expected: tuple[int, int, int]
) -> None:
    assert choice(m, n, k, on=H200_MULTIPROCESSORS, size=4) == expected
