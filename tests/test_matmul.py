# SPDX-License-Identifier: MIT
"""matmul: exact on integers, bounded error, equal bits, NumPy's rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tilegrad as tg
from helpers import (
    FLOATS,
    Array,
    Device,
    assert_close,
    assert_exact,
    assert_same_bits,
    frozen,
    layouts,
    tolerance,
)
from matmul_inputs import TRANSPOSES, integers, mixed, swapped
from tilegrad import reference
from tilegrad.bench.cases import MATMUL, MatmulCase

SMALL = [case for case in MATMUL if case.flops <= 2**23]
MIDDLE = [case for case in MATMUL if 2**23 < case.flops <= 2**28]
LARGE = [case for case in MATMUL if 2**28 < case.flops <= 2**32]
TILED = [(1, 1, 1), (37, 41, 43), (129, 130, 20), (3, 300, 200)]
PARALLEL = [(4, 512, 512), (129, 257, 100), (512, 300, 256), (33, 1025, 130), (1030, 33, 65)]
PARALLEL += [(70, 70, 2053)]
NARROW = [(1, 300, 129), (5, 257, 100), (259, 10, 130), (300, 1, 70), (9, 40, 1100), (1, 1, 1030)]


def check_exact(case: MatmulCase, dtype: Any, device: Device, rng: np.random.Generator) -> None:
    a = integers(rng, (case.m, case.k), dtype)
    b = integers(rng, (case.k, case.n), dtype)
    expected = (a.astype(np.float64) @ b.astype(np.float64)).astype(dtype)
    for ta, tb in TRANSPOSES:
        left = device.put(swapped(a, ta), offset=1)
        right = device.put(swapped(b, tb), offset=3)
        with device.guarded_out(expected.shape, dtype, offset=1) as out:
            result = tg.matmul(left, right, transpose_a=ta, transpose_b=tb, out=out)
            assert result is out
        assert_exact(out, expected, what=f"{case}, transposed {ta}, {tb}")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("cases", [SMALL[i::8] for i in range(8)], ids=range(8))
def test_matmul_exact_on_integers(
    device: Device, isa: str, cases: list[MatmulCase], dtype: Any, rng: np.random.Generator
) -> None:
    for case in device.cases(cases, lambda case: case.flops, within=2**19):
        check_exact(case, dtype, device, rng)


@pytest.mark.simulated("case", lambda case: case.flops <= 2**24)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", MIDDLE, ids=str)
def test_matmul_exact_on_integers_of_many_tiles(
    device: Device, isa: str, threads: int, case: MatmulCase, dtype: Any, rng: np.random.Generator
) -> None:
    check_exact(case, dtype, device, rng)


@pytest.mark.slow
@pytest.mark.simulated("case", lambda case: case.flops <= 2**29)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", LARGE, ids=str)
def test_matmul_exact_on_integers_large(
    device: Device, isa: str, threads: int, case: MatmulCase, dtype: Any, rng: np.random.Generator
) -> None:
    check_exact(case, dtype, device, rng)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("m", "n", "k"),
    [(1, 1, 1), (5, 7, 3), (31, 33, 1000), (64, 10, 512), (130, 97, 257), (3, 4, 5003)],
)
def test_matmul_error_is_bounded(
    device: Device, isa: str, m: int, n: int, k: int, dtype: Any, rng: np.random.Generator
) -> None:
    a, b = mixed(rng, (m, k), dtype), mixed(rng, (k, n), dtype)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    bound = k * np.finfo(dtype).eps * (np.abs(wide_a) @ np.abs(wide_b))
    for ta, tb in TRANSPOSES:
        c = tg.matmul(
            device.put(swapped(a, ta)), device.put(swapped(b, tb)), transpose_a=ta, transpose_b=tb
        )
        assert_close(device.get(c), wide_a @ wide_b, bound, what=f"transposed {ta}, {tb}")


TURNED = ("fortran order", "first axes swapped")  # layouts that are the transpose's memory


@pytest.mark.simulated("shape", lambda shape: np.prod(shape) <= 2**19)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", TILED + PARALLEL + NARROW, ids=str)
def test_matmul_same_bits_for_any_threads_alignment_and_layout(
    device: Device, isa: str, shape: tuple[int, int, int], dtype: Any, rng: np.random.Generator
) -> None:
    """What counts is the order of an operand's axes in memory, in narrow products alone."""
    m, n, k = shape
    a, b = mixed(rng, (m, k), dtype), mixed(rng, (k, n), dtype)
    expected = {}
    for ta, tb in TRANSPOSES:
        tg.set_num_threads(1)
        left, right = device.put(swapped(a, ta), offset=0), device.put(swapped(b, tb), offset=0)
        expected[ta, tb] = tg.matmul(left, right, transpose_a=ta, transpose_b=tb)
        if device.name != "cpu" or 8 * min(m, n) > k:
            assert_same_bits(expected[ta, tb], expected[False, False], what=f"{ta}, {tb}")
        for threads in device.threads(2, 3, 4):
            tg.set_num_threads(threads)
            c = tg.matmul(swapped(a, ta), swapped(b, tb), transpose_a=ta, transpose_b=tb)
            assert_same_bits(c, expected[ta, tb], what=f"{ta}, {tb}, {threads} threads")
    tg.set_num_threads(2)
    left_forms, right_forms = device.layouts(a), device.layouts(b)
    left_there, right_there = device.put(a), device.put(b)
    for (name, left), right in zip(left_forms.items(), right_forms.values(), strict=True):
        other = name in TURNED
        assert_same_bits(tg.matmul(left, right), expected[other, other], what=name)
        assert_same_bits(tg.matmul(left, right_there), expected[other, False], what=f"a: {name}")
        assert_same_bits(tg.matmul(left_there, right), expected[False, other], what=f"b: {name}")
        turned = tg.matmul(left_there, device.layouts(swapped(b, True))[name], transpose_b=True)
        assert_same_bits(turned, expected[False, not other], what=f"b transposed: {name}")
    for offset in (1, 2, 3, 7):
        with device.guarded_out((m, n), dtype, offset) as out:
            tg.matmul(left_there, right_there, out=out)
        assert_same_bits(out, expected[False, False], what=f"out at {offset}")


@pytest.mark.parametrize("dtype", FLOATS)
def test_matmul_of_a_batch_is_its_matrices(
    device: Device, isa: str, threads: int, dtype: Any, rng: np.random.Generator
) -> None:
    shapes = [(3, 5, 7, 9), (40, 33, 17, 20), (2, 129, 130, 131), (300, 1, 8, 16), (2, 129, 130, 9)]
    for batch, m, n, k in device.cases(shapes, np.prod, within=2**19):
        a, b = mixed(rng, (batch, m, k), dtype), mixed(rng, (batch, k, n), dtype)
        a, b = device.put(a), device.put(b)
        both, shared = device.get(tg.matmul(a, b)), device.get(tg.matmul(a, b[0]))
        for i in range(batch):
            what = f"matrix {i} of {(batch, m, n, k)}"
            assert_same_bits(both[i], tg.matmul(a[i], b[i]), what=what)
            assert_same_bits(shared[i], tg.matmul(a[i], b[0]), what=f"{what}, b shared")


BATCHED = [
    ((3,), (3,)),
    ((0,), (0,)),
    ((3,), (3, 4)),
    ((4, 3), (3,)),
    ((3,), (5, 3, 4)),
    ((5, 4, 3), (3,)),
    ((2, 4, 3), (3, 5)),
    ((4, 3), (2, 3, 5)),
    ((2, 4, 3), (2, 3, 5)),
    ((2, 1, 4, 3), (7, 3, 5)),
    ((1, 4, 3), (6, 3, 5)),
    ((2, 1, 3, 17, 9), (4, 1, 9, 33)),
    ((0, 4, 3), (3, 5)),
    ((0, 4, 3), (1, 3, 5)),
    ((2, 0, 3), (2, 3, 5)),
    ((2, 4, 0), (2, 0, 5)),
    ((2, 4, 3), (2, 3, 0)),
    ((1, 1, 1), (1, 1, 1)),
    ((2, 65, 33), (2, 33, 65)),
]


@pytest.mark.parametrize("dtype", FLOATS)
def test_matmul_broadcasts_as_numpy(
    device: Device, isa: str, threads: int, dtype: Any, rng: np.random.Generator
) -> None:
    for shape_a, shape_b in BATCHED:
        a, b = integers(rng, shape_a, dtype), integers(rng, shape_b, dtype)
        expected = np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(dtype)
        for ta, tb in TRANSPOSES:
            if (ta and a.ndim == 1) or (tb and b.ndim == 1):
                continue
            c = tg.matmul(
                device.put(swapped(a, ta)),
                device.put(swapped(b, tb)),
                transpose_a=ta,
                transpose_b=tb,
            )
            message = f"{shape_a} @ {shape_b}, transposed {ta}, {tb}"
            assert_exact(device.get(c), expected, what=message)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "shape", [(3, 33, 65, 7), (96, 33, 34, 5), (50, 40, 70, 9), (2, 8, 40, 17)], ids=str
)
def test_matmul_of_a_batch_takes_every_kernel(
    device: Device, isa: str, compute_capability: int, shape: tuple[int, int, int, int], dtype: Any,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """A device's choice depends on the number of tiles: few, and enough to fill a large one."""
    batch, m, n, k = shape
    a, b = integers(rng, (batch, m, k), dtype), integers(rng, (batch, k, n), dtype)
    expected = np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(dtype)
    for ta, tb in TRANSPOSES:
        left, right = device.put(swapped(a, ta), offset=1), device.put(swapped(b, tb))
        with device.guarded_out(expected.shape, dtype, offset=3) as out:
            tg.matmul(left, right, transpose_a=ta, transpose_b=tb, out=out)
        assert_exact(out, expected, what=f"transposed {ta}, {tb}")


@pytest.mark.not_on_cpu("there a product of vectors is a NumPy scalar")
def test_matmul_of_vectors_is_an_array_of_no_axes(device: Device) -> None:
    c = tg.matmul(device.put(np.float32([1, 2, 3])), device.put(np.float32([4, 5, 6])))
    assert isinstance(c, tg.Array)
    assert c.shape == ()
    assert float(c) == 32


def test_matmul_of_vectors_is_a_scalar() -> None:
    c = tg.matmul(np.float32([1, 2, 3]), np.float32([4, 5, 6]))
    assert isinstance(c, np.float32)
    assert c == 32
    out = np.full((), np.nan, np.float32)
    assert tg.matmul(np.float32([1, 2]), np.float32([3, 4]), out=out) is out
    assert out == 11


@pytest.mark.parametrize("dtype", FLOATS)
def test_matmul_reads_strided_batches_and_broadcast_views(
    isa: str, threads: int, dtype: Any, rng: np.random.Generator
) -> None:
    a, b = integers(rng, (6, 4, 34, 33), dtype), integers(rng, (6, 4, 33, 35), dtype)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    for name, left in layouts(a).items():
        np.testing.assert_array_equal(tg.matmul(left, b), expected, err_msg=name)
    for name, right in layouts(b).items():
        np.testing.assert_array_equal(tg.matmul(a, right), expected, err_msg=name)
    np.testing.assert_array_equal(tg.matmul(a[::-2, ::3], b[::-2, ::3]), expected[::-2, ::3])
    row = np.broadcast_to(a[0, 0, 0], (34, 33))  # every row the same memory
    np.testing.assert_array_equal(tg.matmul(row, b[0, 0]), row.astype(np.float64) @ b[0, 0])
    column = np.broadcast_to(b[0, 0, :, :1], (33, 35))
    np.testing.assert_array_equal(tg.matmul(a[0, 0], column), a[0, 0].astype(np.float64) @ column)
    one = np.broadcast_to(np.array(3, dtype), (40, 33))
    np.testing.assert_array_equal(tg.matmul(one, b[0, 0]), one.astype(np.float64) @ b[0, 0])
    many = np.broadcast_to(a[0, 0], (5, 34, 33))
    np.testing.assert_array_equal(tg.matmul(many, b[0, 0]), many.astype(np.float64) @ b[0, 0])
    # windows that overlap: rows one element apart
    windows = np.lib.stride_tricks.sliding_window_view(a[0, 0, 0], 20)
    np.testing.assert_array_equal(
        tg.matmul(windows, b[0, 0, :20]), windows.astype(np.float64) @ b[0, 0, :20]
    )


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_matmul_propagates_nan_and_infinity(
    device: Device, isa: str, dtype: Any, value: float, rng: np.random.Generator
) -> None:
    """Zero times NaN or infinity is NaN; what does not meet the value stays finite."""
    shapes = [(1, 1, 1), (3, 5, 7), (17, 33, 40), (65, 10, 130), (70, 97, 131)]
    for m, n, k in device.cases(shapes, np.prod, within=100_000):
        for row in {0, m // 2, m - 1}:
            for p in {0, k // 2, k - 1}:
                a, b = np.zeros((m, k), dtype), np.zeros((k, n), dtype)
                a[row, p] = value
                b[p, n // 2] = 2  # value * 2 here, value * 0 beside it
                with np.errstate(invalid="ignore"):
                    expected = a @ b
                assert np.isnan(expected[row]).sum() >= n - 1
                c = device.get(tg.matmul(device.put(a), device.put(b)))
                np.testing.assert_array_equal(c, expected, err_msg=f"{(m, n, k)} at {row}, {p}")
                mirrored = tg.matmul(
                    device.put(b), device.put(a), transpose_a=True, transpose_b=True
                )
                np.testing.assert_array_equal(device.get(mirrored), expected.T)


@pytest.mark.parametrize("dtype", FLOATS)
def test_matmul_overflow_cancellation_and_denormals(device: Device, isa: str, dtype: Any) -> None:
    info = np.finfo(dtype)
    big, tiny = info.max, info.smallest_subnormal

    def product(a: Any, b: Any) -> Array:
        return device.get(
            tg.matmul(device.put(np.array([a], dtype)), device.put(np.array(b, dtype)[:, None]))
        )

    assert product([big, big], [1, 1]) == np.inf
    assert np.isnan(product([np.inf, -np.inf], [1, 1]))
    assert product([tiny], [1]) == tiny
    assert product([tiny] * 40, [1] * 40) == 40 * tiny
    assert product([info.tiny], [0.5]) == info.tiny / 2
    assert product([1, 1e-3, -1], [1, 0, 1]) == 0


@pytest.mark.parametrize("dtype", FLOATS)
def test_matmul_returns_fresh_arrays(isa: str, threads: int, dtype: Any) -> None:
    a, b = frozen(np.ones((40, 30), dtype)), frozen(np.ones((30, 50), dtype))
    first = tg.matmul(a, b)
    kept = first.copy()
    second = tg.matmul(a, b * dtype(2))
    assert type(first) is np.ndarray
    assert first.flags.writeable
    assert first.flags.c_contiguous
    assert first.dtype == dtype
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, kept)


def test_matmul_sum_of_nothing_is_zero(device: Device, isa: str) -> None:
    left, right = (device.put(np.empty(s, np.float32)) for s in ((3, 0), (0, 4)))
    with device.guarded_out((3, 4), np.float32) as out:
        tg.matmul(left, right, out=out)
    assert_exact(out, np.zeros((3, 4), np.float32))
    assert not device.ops.matmul(np.empty((2, 5, 0)), np.empty((0, 4))).any()
    assert float(device.ops.matmul(np.empty(0), np.empty(0))) == 0


@given(
    data=st.data(),
    m=st.integers(0, 70),
    n=st.integers(0, 70),
    k=st.integers(0, 70),
    batch=st.lists(st.integers(0, 3), max_size=2),
)
def test_matmul_hypothesis(
    device: Device, isa: str, data: st.DataObject, m: int, n: int, k: int, batch: list[int]
) -> None:
    dtype = data.draw(st.sampled_from(FLOATS))
    ta, tb = data.draw(st.booleans()), data.draw(st.booleans())
    keep_a = [size if data.draw(st.booleans()) else 1 for size in batch]
    keep_b = [size if data.draw(st.booleans()) else 1 for size in batch]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    a = mixed(rng, (*keep_a, *((k, m) if ta else (m, k))), dtype)
    b = mixed(rng, (*keep_b, *((n, k) if tb else (k, n))), dtype)
    steps = data.draw(st.sampled_from([1, -1]))
    a, b = a[..., ::steps], b[..., ::steps, :]
    c = device.ops.matmul(a, b, transpose_a=ta, transpose_b=tb)
    options = {"transpose_a": ta, "transpose_b": tb}
    scale = reference.matmul(np.abs(a), np.abs(b), **options)
    assert c.dtype == dtype
    assert_close(c, reference.matmul(a, b, **options), tolerance(dtype, k) * scale)
