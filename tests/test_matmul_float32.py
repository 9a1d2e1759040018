# SPDX-License-Identifier: MIT
"""Products of float32 on tensor cores: how far from float64 they may be, and who asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from helpers import Array, Device, assert_close, assert_same_bits, error
from matmul_inputs import TRANSPOSES, mixed, swapped
from tilegrad import backends

PRECISIONS = ("highest", "high", "medium")
# (m, n, k): one element, nothing to sum, parts of tiles, several tiles, a ring gone round.
SHAPES = [(1, 1, 1), (3, 5, 0), (67, 71, 73), (129, 132, 24), (20, 17, 261)]
on_device = pytest.mark.not_on_cpu("the ladder is the GPU's")


@pytest.fixture(autouse=True)
def _default_precision() -> Iterator[None]:
    yield
    tg.set_float32_matmul_precision("highest")


@pytest.fixture
def tensor_device(device: Device) -> Device:
    place = backends.place_of(device.name)
    if place is None or backends.at(place).properties(place)["compute_capability"] < (8, 0):
        pytest.skip("tensor cores for tf32 begin with compute capability 8.0")
    return device


def relative_bound(rung: str, k: int) -> float:
    """Return e of |error of c_ij| <= e sum_p |a_ip| |b_pj|."""
    if rung == "tf32x3":
        return 2**-21 + (k / 8 + 3) * 2**-24
    return (2**-10 + 2**-20 if rung == "tensor_core" else 0) + (k + 1) * 2**-24


def multiply(
    device: Device, a: Array, b: Array, rung: str | None, ta: bool = False, tb: bool = False
) -> Array:
    left, right = device.put(swapped(a, ta)), device.put(swapped(b, tb))
    return device.get(tg.matmul(left, right, transpose_a=ta, transpose_b=tb, variant=rung))


def wide(a: Array, b: Array) -> tuple[Array, Array]:
    """Return the product and the sums of magnitudes in float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return a @ b, np.abs(a) @ np.abs(b)


@pytest.mark.parametrize("rung", ["tf32x3", "tensor_core"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_error_is_within_the_bound_of_the_rung(
    tensor_device: Device, rung: str, shape: tuple[int, int, int], rng: np.random.Generator
) -> None:
    m, n, k = shape
    a, b = mixed(rng, (m, k), np.float32), mixed(rng, (k, n), np.float32)
    want, magnitude = wide(a, b)
    first = multiply(tensor_device, a, b, rung)
    assert_close(first, want, relative_bound(rung, k) * magnitude)
    for ta, tb in TRANSPOSES[1:]:
        assert_same_bits(multiply(tensor_device, a, b, rung, ta, tb), first)


def test_three_products_are_as_good_as_float32(
    tensor_device: Device, rng: np.random.Generator
) -> None:
    # Numbers of one sign: what is cut off does not cancel.
    a = rng.uniform(1, 2, (32, 520)).astype(np.float32)
    b = rng.uniform(1, 2, (520, 24)).astype(np.float32)
    want, magnitude = wide(a, b)
    worst = {
        rung: float(np.max(np.abs(multiply(tensor_device, a, b, rung) - want) / magnitude))
        for rung in ("naive", "tf32x3", "tensor_core")
    }
    assert worst["tf32x3"] < 2 * worst["naive"]
    assert worst["tf32x3"] < 2**-21
    assert worst["tensor_core"] > 8 * worst["tf32x3"]


def test_single_products_lose_what_the_parts_cannot_hold(tensor_device: Device) -> None:
    # k = 1: the error is the split's alone. All significands of 13 low bits, by powers of two.
    low = np.arange(0, 2**13, 3, dtype=np.uint32)
    x = (np.uint32(0x3F8FE000) + low).view(np.float32)
    y = np.array([1, 1 + 2**-11, 2 - 2**-23, -(1 + 2**-12 + 2**-23)], np.float32)
    want, magnitude = wide(x[:, None], y[None])
    got = multiply(tensor_device, x[:, None], y[None], "tf32x3")
    assert_close(got, want, (2**-21 + 2**-24) * magnitude)
    assert_close(got[:, 0], x.astype(np.float64), 2**-23 * x)  # both parts hold all but a last bit


@pytest.mark.parametrize("rung", ["tf32x3", "tensor_core"])
def test_infinity_and_nan_act_as_in_float32(tensor_device: Device, rung: str) -> None:
    values = np.array(
        [0, -0.0, 1, -1.5, 2**-126, 1 + 2**-23, 3e38, np.inf, -np.inf, np.nan], np.float32
    )
    values = np.append(values, np.array([0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32))
    a, b = values[:, None], values[None]
    with np.errstate(all="ignore"):
        want = a * b
    got = multiply(tensor_device, a, b, rung)
    assert (np.isfinite(got) == np.isfinite(want)).all()  # a product that overflows may be NaN
    special = ~np.isfinite(a) | ~np.isfinite(b)
    np.testing.assert_array_equal(np.where(special, got, 0), np.where(special, want, 0))
    # They stay in their rows and columns; zeros beside the operands do not meet them.
    left, right = np.ones((67, 13), np.float32), np.ones((13, 70), np.float32)
    left[66, 12], right[12, 69] = np.nan, -np.inf
    got = multiply(tensor_device, left, right, rung)
    assert np.isnan(got[66]).all()
    assert (got[:66, 69] == -np.inf).all()
    assert (got[:66, :69] == 13).all()


def test_the_ends_of_the_range_keep_their_accuracy(tensor_device: Device) -> None:
    largest = np.finfo(np.float32).max
    # Rounded to tf32 these would be infinite.
    x = np.array([largest, -largest, np.nextafter(largest, np.float32(0))], np.float32)[:, None]
    y = np.array([1 - 2**-20, -0.5, 2**-100, 0.75], np.float32)[None]
    want, magnitude = wide(x, y)
    got = multiply(tensor_device, x, y, "tf32x3")
    assert np.isfinite(got).all()
    assert_close(got, want, (2**-21 + 2**-24) * magnitude)
    # Parts below float's normal numbers may be lost: 2^-126 of each operand.
    x = np.array([3.3e-38, -1.2e-38, 5e-40, 1e-45, 7e-32], np.float32)[:, None]
    y = np.array([1, -3.25, 1e10], np.float32)[None]
    want, magnitude = wide(x, y)
    got = multiply(tensor_device, x, y, "tf32x3")
    lost = 2.0**-126 * (np.abs(x.astype(np.float64)) + np.abs(y.astype(np.float64)) + 1)
    assert_close(got, want, (2**-21 + 2**-24) * magnitude + lost)


@on_device
@pytest.mark.parametrize("rung", ["tf32x3", "hopper_tf32"])
def test_the_rung_is_float32s_alone(device: Device, rung: str) -> None:
    x = np.ones((8, 8))
    with error(ValueError, "matmul", f"'{rung}' needs float32; got float64"):
        multiply(device, x, x, rung)


# ---- set_float32_matmul_precision ---------------------------------------------------------------


def test_the_setting_is_one_of_three_words() -> None:
    assert tg.get_float32_matmul_precision() == "highest"
    for precision in PRECISIONS:
        tg.set_float32_matmul_precision(precision)
        assert tg.get_float32_matmul_precision() == precision
    for wrong in ("tf32", "", None, 1):
        with error(
            ValueError, "set_float32_matmul_precision", "highest, high, medium", repr(wrong)
        ):
            tg.set_float32_matmul_precision(wrong)  # type: ignore[arg-type]
    assert tg.get_float32_matmul_precision() == "medium"


def test_the_choice_follows_the_setting() -> None:
    choice = backends.at(backends.SIM)._matmul_choice
    square = (1, 512, 512, 512, 4)
    for cc, precision, rung in [
        (90, "highest", "tile_1d"), (90, "high", "tf32x3"), (80, "high", "tf32x3"),
        (75, "high", "tile_1d"), (80, "medium", "tensor_core"), (75, "medium", "tile_1d"),
    ]:  # fmt: skip
        assert choice(*square, cc, False, True, True, precision) == rung
    for size, k_major, rung in [
        ((1, 4096, 4096, 4096), False, "hopper_tf32"), ((1, 65536, 512, 784), True, "hopper_tf32"),
        ((1, 65536, 512, 784), False, "tensor_core"),  # too few uses of a transposed element
        ((1, 4096, 4096, 4098), True, "tensor_core"), ((1, 1024, 1024, 4096), False, "tensor_core"),
        ((1, 1024, 1024, 4096), True, "hopper_tf32"),  # few tiles: k is cut into pieces
        ((1, 128, 128, 124), True, "tensor_core"),  # over before the ring has filled
    ]:  # fmt: skip
        assert choice(*size, 4, 90, k_major, True, True, "medium", k_major) == rung
    assert choice(1, 4096, 4096, 4096, 4, 80, False, True, True, "medium") == "tensor_core"
    assert choice(1, 8, 512, 512, 4, 90, False, True, True, "high") == "coalesced"  # reading b
    assert choice(1, 512, 512, 512, 8, 90, False, True, True, "high") == "tile_1d"  # not of float64
    assert (
        choice(1, 4096, 4096, 4096, 2, 90, False, True, True, "medium") == "hopper"
    )  # nor of 16 bits


def test_products_take_the_rung_of_the_setting(
    tensor_device: Device, rng: np.random.Generator
) -> None:
    a, b = mixed(rng, (40, 64), np.float32), mixed(rng, (64, 24), np.float32)
    strict = multiply(tensor_device, a, b, None)
    for precision, rung in (("high", "tf32x3"), ("medium", "tensor_core"), ("highest", "naive")):
        tg.set_float32_matmul_precision(precision)
        want = multiply(tensor_device, a, b, rung)
        assert_same_bits(multiply(tensor_device, a, b, None), want)
        # A layer's products are the same ones; a named rung is not touched.
        y = tg.linear(tensor_device.put(a), tensor_device.put(swapped(b, True)))
        assert_same_bits(tensor_device.get(y), want)
        assert_same_bits(multiply(tensor_device, a, b, "naive"), strict)


def test_the_cpu_ignores_the_setting(rng: np.random.Generator) -> None:
    a, b = mixed(rng, (40, 64), np.float32), mixed(rng, (64, 24), np.float32)
    strict = tg.matmul(a, b)
    tg.set_float32_matmul_precision("medium")
    assert_same_bits(np.asarray(tg.matmul(a, b)), np.asarray(strict))


def test_a_recorded_step_keeps_its_precision(
    tensor_device: Device, rng: np.random.Generator
) -> None:
    x = tensor_device.put(rng.standard_normal((16, 32)).astype(np.float32))
    t = tensor_device.put(rng.standard_normal((16, 24)).astype(np.float32))

    def losses(precisions: tuple[str, ...]) -> list[Any]:
        tg.manual_seed(5)
        model = tg.nn.Linear(32, 24).to(tensor_device.name)
        step = tg.TrainStep(model, tg.nn.MSELoss(), tg.optim.SGD(model.parameters(), lr=0.1))
        found = []
        for precision in precisions:
            tg.set_float32_matmul_precision(precision)
            found.append(float(step(x, t)))
        return found

    strict = losses(("highest",) * 4)
    rough = losses(("medium",) * 4)
    assert losses(("highest", "medium", "medium", "high")) == strict
    assert losses(("medium", "medium", "highest", "high")) == rough
    assert rough != strict
    np.testing.assert_allclose(rough, strict, rtol=5e-3)
