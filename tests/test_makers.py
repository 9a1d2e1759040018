# SPDX-License-Identifier: MIT
"""Memory that tilegrad makes on the CPU starts on a cache line, whatever its size or dtype."""

import ml_dtypes
import numpy as np
import pytest

import tilegrad as tg
from tilegrad._makers import copied, zeros_like

SHAPES = [(), (0,), (1,), (3, 0, 2), (5, 7), (129, 33)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, "bfloat16", bool])
@pytest.mark.parametrize("shape", SHAPES)
def test_made_arrays_start_on_a_line(shape, dtype):
    kept = []  # so that memory is not given twice
    for _ in range(4):
        for made in (tg.empty(shape, dtype), tg.ones(shape, dtype), tg.zeros(shape, dtype)):
            assert made.shape == shape
            assert made.dtype == (ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
            assert made.flags.c_contiguous
            assert made.flags.writeable
            assert made.size == 0 or made.ctypes.data % 64 == 0
            kept.append(made)
        assert not kept[-1].any()


def test_parameters_and_gradients_start_on_a_line():
    layer = tg.nn.Linear(13, 7)
    y = layer(np.ones((3, 13), np.float32))
    layer.backward(np.ones_like(y))
    for p in layer.parameters():
        assert p.data.ctypes.data % 64 == 0
        assert p.grad.ctypes.data % 64 == 0


def test_copies_are_contiguous_and_own_their_values():
    x = np.arange(24.0).reshape(4, 6).T[::2]
    y = copied(x, "cpu")
    np.testing.assert_array_equal(y, x)
    assert y.flags.c_contiguous
    assert not np.shares_memory(x, y)
    assert zeros_like(x).shape == x.shape
    assert zeros_like([1, 2]).dtype == np.asarray([1, 2]).dtype


@pytest.mark.parametrize("integer", [np.uint8, np.int16, np.int32])
def test_sizes_are_any_integers(integer):
    assert tg.zeros((integer(100), integer(100))).shape == (100, 100)
    assert tg.empty(integer(100), np.float64).shape == (100,)


def test_values_and_odd_dtypes_are_as_numpy_has_them():
    np.testing.assert_array_equal(tg.full(3, 2.9, np.int32), np.full(3, 2.9, np.int32))
    assert tg.full((), 7, None).dtype == np.full((), 7).dtype
    assert tg.full(2, True, None).dtype == bool
    assert np.signbit(tg.full(2, -0.0)).all()
    assert tg.empty(2, "(3,)f4").shape == (2, 3)
    assert tg.zeros(2, object).tolist() == [0, 0]
    assert tg.zeros(2, "S3").tolist() == [b"", b""]


@pytest.mark.parametrize("make", [tg.empty, tg.zeros])
def test_sizes_that_cannot_be(make):
    with pytest.raises(ValueError, match="negative dimensions"):
        make((2, -1))
    with pytest.raises((ValueError, MemoryError)):
        make((2**62, 2**62))
