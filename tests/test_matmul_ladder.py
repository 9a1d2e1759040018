# SPDX-License-Identifier: MIT
"""The ladder of matmul kernels: every rung does every shape and layout; most share their bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from helpers import Array, Device, assert_close, assert_exact, assert_same_bits, error, tolerance
from matmul_inputs import TRANSPOSES, integers, mixed, swapped
from tilegrad import backends

pytestmark = pytest.mark.not_on_cpu("the ladder is the GPU's")

# Rungs that sum in one chain of fma over k: the same bits.
CHAINED = (
    "naive",
    "coalesced",
    "shared",
    "tile_1d",
    "tile_2d",
    "vectorized",
    "double_buffered",
    "warp_tile",
)
RUNGS = (*CHAINED, "tensor_core", "hopper")
FLOAT32_RUNGS = ("tf32x3", "hopper_tf32")  # test_matmul_float32.py
# (m, n, k): one element; nothing to sum; around a warp, a tile of 32, 64 and 128 and a slice of 8;
# primes; tall, wide and a long sum that goes round every ring of buffers.
SHAPES = [
    (1, 1, 1), (1, 1, 0), (3, 5, 0), (31, 32, 33), (33, 31, 32), (32, 33, 31), (63, 64, 65),
    (65, 63, 64), (127, 129, 9), (129, 128, 7), (128, 127, 8), (67, 71, 73), (257, 9, 16),
    (1, 130, 40), (130, 1, 40), (5, 3, 1031), (132, 136, 24),
]  # fmt: skip

every_chained = pytest.mark.parametrize("rung", CHAINED)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=("float32", "float64"))


def multiply(
    device: Device, a: Array, b: Array, rung: str | None, ta: bool = False, tb: bool = False
) -> Array:
    """Multiply on the device; the operands lie there transposed where `ta`, `tb` say so."""
    left, right = device.put(swapped(a, ta)), device.put(swapped(b, tb))
    return device.get(tg.matmul(left, right, transpose_a=ta, transpose_b=tb, variant=rung))


def capability(device: Device) -> tuple[int, int]:
    place = backends.place_of(device.name)
    found: tuple[int, int] = backends.at(place).properties(place)["compute_capability"]
    return found


@every_chained
@every_dtype
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_rung_follows_float64(
    device: Device, rung: str, dtype: Any, shape: tuple[int, int, int], rng: np.random.Generator
) -> None:
    m, n, k = shape
    a, b = mixed(rng, (m, k), dtype), mixed(rng, (k, n), dtype)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    bound = tolerance(dtype, k) * (np.abs(wide_a) @ np.abs(wide_b))
    want = multiply(device, a, b, "naive")
    for ta, tb in TRANSPOSES:
        got = multiply(device, a, b, rung, ta, tb)
        assert got.dtype == dtype
        assert_close(got, wide_a @ wide_b, bound, what=f"transposed {ta}, {tb}")
        assert_same_bits(got, want, what=f"{rung} beside naive, transposed {ta}, {tb}")


@every_chained
@every_dtype
def test_alignment_does_not_change_the_bits(
    device: Device, rung: str, dtype: Any, rng: np.random.Generator
) -> None:
    for m, n, k in ((132, 68, 20), (64, 128, 16), (33, 35, 37)):
        a, b = mixed(rng, (m, k), dtype), mixed(rng, (k, n), dtype)
        for ta, tb in TRANSPOSES:
            left, right = swapped(a, ta), swapped(b, tb)
            moved = [
                device.put(np.concatenate([np.full(1, np.nan, dtype), x.ravel()]))[1:].reshape(
                    x.shape
                )
                for x in (left, right)
            ]
            got = tg.matmul(*moved, transpose_a=ta, transpose_b=tb, variant=rung)
            assert_same_bits(device.get(got), multiply(device, a, b, rung, ta, tb))


@every_chained
@every_dtype
def test_a_batch_is_a_row_of_products(
    device: Device, rung: str, dtype: Any, rng: np.random.Generator
) -> None:
    a, b = mixed(rng, (3, 33, 17), dtype), mixed(rng, (3, 17, 66), dtype)
    got = multiply(device, a, b, rung)
    shared = multiply(device, a, b[1], rung)
    for i in range(3):
        assert_same_bits(got[i], multiply(device, a[i], b[i], rung))
        assert_same_bits(shared[i], multiply(device, a[i], b[1], rung))


@every_chained
@every_dtype
def test_nan_and_infinity_stay_in_their_row_and_column(
    device: Device, rung: str, dtype: Any, rng: np.random.Generator
) -> None:
    # 67 x 70 x 13 leaves every tile part empty: the zeros there must not meet an infinity.
    a, b = mixed(rng, (67, 13), dtype), mixed(rng, (13, 70), dtype)
    clean = multiply(device, a, b, rung)
    a[66, 12], b[12, 69] = np.nan, np.inf
    got = multiply(device, a, b, rung)
    assert np.isnan(got[66]).all()
    assert not np.isfinite(got[:, 69]).any()
    assert_same_bits(got[:66, :69], clean[:66, :69])


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("shape", [(8, 8, 8), (64, 72, 40), (136, 264, 96)], ids=str)
def test_every_rung_is_exact_on_small_integers_of_16_bits(
    device: Device, rung: str, shape: tuple[int, int, int], rng: np.random.Generator
) -> None:
    m, n, k = shape
    # Sums stay below 2^11 where float16 ends: any order, and tensor cores too, must be exact.
    a, b = integers(rng, (m, k), np.float16), integers(rng, (k, n), np.float16)
    want = a.astype(np.float64) @ b.astype(np.float64)
    assert np.abs(want).max() < 2**11
    needed = {"tensor_core": (8, 0), "hopper": (9, 0)}.get(rung, (0, 0))
    for ta, tb in TRANSPOSES:
        if capability(device) < needed:
            with error(ValueError, "matmul", rung, "compute capability"):
                multiply(device, a, b, rung, ta, tb)
        else:
            assert_exact(multiply(device, a, b, rung, ta, tb), want.astype(np.float16))


@every_dtype
def test_the_public_choice_follows_float64(
    device: Device, dtype: Any, rng: np.random.Generator
) -> None:
    # One shape for each answer of the choice: few rows, few columns, few and many tiles.
    for m, n, k in ((3, 300, 50), (70, 9, 33), (100, 90, 20), (500, 450, 9), (1290, 1200, 5)):
        a, b = mixed(rng, (m, k), dtype), mixed(rng, (k, n), dtype)
        want = a.astype(np.float64) @ b.astype(np.float64)
        bound = tolerance(dtype, k) * (np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64)))
        for tb in (False, True):
            got = multiply(device, a, b, None, tb=tb)
            assert_close(got, want, bound, what=f"{m} x {n} x {k}, b transposed {tb}")


def test_an_unknown_rung_is_refused_by_name(device: Device) -> None:
    x = np.zeros((2, 2), np.float32)
    with error(ValueError, "matmul", "must be one of", *RUNGS, *FLOAT32_RUNGS, "got 'nope'"):
        multiply(device, x, x, "nope")
    with error(ValueError, "matmul", "variant", "''"):
        multiply(device, x, x, "")


def test_a_rung_that_cannot_do_a_dtype_says_what_it_can(device: Device) -> None:
    x = np.ones((8, 8))
    for rung, dtypes in (
        ("tensor_core", "float32, bfloat16 or float16"), ("hopper", "bfloat16 or float16"),
    ):  # fmt: skip
        with error(ValueError, "matmul", f"'{rung}' needs {dtypes}; got float64"):
            multiply(device, x, x, rung)


def test_a_rung_that_cannot_do_a_product_says_why(device: Device, compute_capability: int) -> None:
    major, minor = capability(device)
    x = device.put(np.ones((8, 8), np.float16))
    for rung in ("tensor_core", "hopper"):
        if (major, minor) < {"tensor_core": (8, 0), "hopper": (9, 0)}[rung]:
            with error(ValueError, "matmul", f"'{rung}' needs compute capability",
                       f"got {major}.{minor}"):  # fmt: skip
                tg.matmul(x, x, variant=rung)
        else:
            tg.matmul(x, x, variant=rung)
    if (major, minor) != (9, 0):
        return
    moved = device.put(np.ones((8, 8), np.float16), 1)
    with error(ValueError, "matmul", "'hopper' needs a with one", "got one 2 bytes beyond"):
        tg.matmul(moved, x, variant="hopper")
    odd = device.put(np.ones((8, 9), np.float16))
    with error(ValueError, "matmul", "'hopper' needs b with one", "steps of 0, 9 and 1 elements"):
        tg.matmul(x, odd, variant="hopper")
    empty = device.put(np.ones((8, 0), np.float16))
    with error(ValueError, "matmul", "'hopper' needs k of at least 1; got 0"):
        tg.matmul(empty, empty, transpose_b=True, variant="hopper")


def test_the_cpu_has_no_ladder() -> None:
    x = np.zeros((2, 2))
    with error(ValueError, "matmul", "the cpu has no variants", "shared"):
        tg.matmul(x, x, variant="shared")


@pytest.mark.parametrize(
    ("m", "n", "k", "element_bytes", "cc", "rung"),
    [
        (4096, 4096, 4096, 4, 90, "warp_tile"),  # float32 never takes tensor cores
        (4096, 4096, 4096, 8, 90, "warp_tile"),
        (4096, 4096, 4096, 2, 75, "warp_tile"),  # Turing has no mma of bfloat16
        (4096, 4096, 4096, 2, 80, "tensor_core"),
        (4096, 4096, 4096, 2, 90, "hopper"),
        (4096, 4096, 32, 2, 90, "tensor_core"),  # too short a sum for the ring
        (256, 256, 4096, 2, 90, "hopper"),  # few tiles: k is cut into pieces
        (4, 4096, 4096, 2, 90, "hopper"),  # bound by reading b, which the engine does best
        (4, 4096, 4096, 2, 80, "coalesced"),
        (120, 120, 120, 2, 90, "tensor_core"),  # too little work for the ring
        (4096, 8, 4096, 2, 90, "shared"),
        (4, 4096, 4096, 4, 90, "coalesced"),
        (16, 4096, 4096, 4, 90, "shared"),
        (512, 512, 512, 4, 90, "tile_1d"),
        (100, 100, 100, 4, 90, "shared"),
    ],
)
def test_the_choice_is_a_function_of_shape_dtype_and_device(
    m: int, n: int, k: int, element_bytes: int, cc: int, rung: str
) -> None:
    choice = backends.at(backends.SIM)._matmul_choice
    assert choice(1, m, n, k, element_bytes, cc, False, True, True) == rung


def test_the_choice_sees_layout_and_batch() -> None:
    choice = backends.at(backends.SIM)._matmul_choice
    assert choice(1, 4, 512, 512, 4, 90, True, True, True) == "shared"  # b has to be turned
    assert choice(1, 4096, 4096, 4096, 2, 90, False, False, False) == "hopper"  # reads a copy
    assert choice(1, 100, 4096, 4096, 2, 90, False, False, False) == "tensor_core"  # too short
    # Only what is copied has to be used often: dW of a layer with ten outputs, 65,536 rows.
    assert choice(1, 10, 512, 65536, 2, 90, False, False, True) == "hopper"
    assert choice(1, 10, 512, 65536, 2, 90, False, True, False) == "tensor_core"
    assert choice(1, 10, 120, 65536, 2, 90, False, False, True) == "tensor_core"
    assert choice(64, 128, 128, 128, 4, 90, False, True, True) == "tile_1d"
    assert choice(128, 128, 128, 128, 4, 90, False, True, True) == "warp_tile"
