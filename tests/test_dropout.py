# SPDX-License-Identifier: MIT
"""dropout: the mask is a function of seed and offset alone; values as torch's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import tilegrad as tg
from helpers import Device, assert_exact, assert_same_bits, error, frozen
from tilegrad import _random, backends
from tilegrad import reference as ref

DTYPES = ("float32", "float64")
SHAPES = [(), (1,), (3,), (4,), (5,), (0,), (31,), (32,), (33, 7), (2, 3, 5), (1009,), (40_003,)]


@pytest.mark.simulated("shape", lambda shape: np.prod(shape) <= 2_000)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_mask_is_the_references_on_every_instruction_set_and_thread_count(
    shape: tuple[int, ...], dtype: str, device: Device, isa: str, threads: int,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    x = frozen(np.asarray(rng.standard_normal(shape)).astype(dtype))
    bx = device.put(x)
    if device.name != "cpu":  # the cpu's mask, and its values: one product each
        same = tg.dropout(x, 0.3, seed=77, offset=5)
        assert_same_bits(tg.dropout(bx, 0.3, seed=77, offset=5), same)
    for p in (0.1, 0.5, 0.9):
        for seed, offset in ((1, 0), (2**64 - 1, 3), (12345, 2**32 - 2), (7, 2**64 - 1)):
            y = device.get(tg.dropout(bx, p, seed=seed, offset=offset))
            want = ref.dropout(x, p, seed=seed, offset=offset)
            assert y.dtype == dtype
            assert np.array_equal(y == 0, want == 0)
            np.testing.assert_allclose(y, want, rtol=1.5 * np.finfo(dtype).eps)
            dx = device.get(tg.dropout_backward(bx, bx, p, seed=seed, offset=offset))
            assert_same_bits(dx, y)


@pytest.mark.simulated("size", lambda size: size <= 257)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 7, 8, 257, 4099])
def test_rows_of_a_whole_have_the_masks_that_they_have_in_it(
    size: int, dtype: str, device: Device, isa: str, threads: int, rng: np.random.Generator
) -> None:
    x = frozen(rng.standard_normal((13, size)).astype(dtype))
    whole = tg.dropout(x, 0.4, seed=9, offset=2**32 - 3)
    rows = backends.of(device.put(x)).dropout_rows
    for first, step in ((0, 1), (0, 2), (1, 2), (2, 3), (12, 13), (3, 50)):
        part = np.ascontiguousarray(x[first::step])
        y = device.get(rows(device.put(part), 0.4, 9, 2**32 - 3, first, step))
        assert_same_bits(y, np.ascontiguousarray(whole[first::step]))
        assert_same_bits(rows(device.put(part[:0]), 0.4, 9, 0, first, step), part[:0])
    if device.name == "cpu":  # strided: packed
        y = rows(x.T[::2], 0.4, 9, 0, 1, 2)
        assert_same_bits(y, rows(np.ascontiguousarray(x.T[::2]), 0.4, 9, 0, 1, 2))


def test_words_are_those_of_the_published_philox(device: Device) -> None:
    known = [  # Random123's kat_vectors, philox4x32, 10 rounds: counter, key, result
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ]
    for counter, key, result in known:
        assert tuple(int(w) for w in ref.philox4x32_10(counter, key)) == result
    # Seen from outside: word i is dropped exactly where p passes it.
    words = known[0][2]
    for i, word in enumerate(words):
        below, above = np.nextafter(word / 2**32, 0) - 2**-32, (word + 1) / 2**32
        x, dropout = np.ones(4), device.ops.dropout
        assert dropout(x, below, seed=0)[i] != 0
        assert dropout(x, word / 2**32, seed=0)[i] != 0  # kept if word >= p 2^32
        assert dropout(x, above, seed=0)[i] == 0


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.8, 0.999])
def test_rate_and_mean_are_right(p: float) -> None:
    n = 400_000
    y = tg.dropout(np.ones(n, "f4"), p, seed=3)
    deviation = math.sqrt(p * (1 - p) / n)
    assert abs((y == 0).mean() - p) < 5 * deviation
    assert abs(y.mean(dtype=np.float64) - 1) < 5 * deviation / (1 - p)
    kept = (y != 0).astype(np.float64) - (1 - p)
    for lag in (1, 2, 4, 8, 64):  # neighbours are independent
        correlation = (kept[lag:] * kept[:-lag]).mean() / (p * (1 - p))
        assert abs(correlation) < 5 / math.sqrt(n - lag)


@pytest.mark.parametrize("dtype", DTYPES)
def test_p_of_one_and_of_nothing(device: Device, dtype: str, rng: np.random.Generator) -> None:
    x = device.put(rng.standard_normal(37).astype(dtype))
    zero = np.zeros(37, dtype)
    assert_exact(tg.dropout(x, 1.0, seed=1), zero)
    assert_exact(tg.dropout_backward(x, x, 1.0, seed=1, offset=0), zero)
    before = _random.get_state()
    assert tg.dropout(x, 0.0) is x
    assert tg.dropout(x, 0.5, False) is x
    assert_same_bits(tg.dropout_backward(x, x, 0.5, False, seed=1, offset=0), x)
    assert_same_bits(tg.dropout_backward(x, x, 0.0, seed=1, offset=0), x)
    out = x.copy()
    assert tg.dropout(x, 0.5, False, out=out) is out
    assert_same_bits(out, x)
    assert _random.get_state() == before  # nothing was drawn
    tiny = 2.0**-34  # rounds to a bound of 0: everything is kept, and scaled
    assert (device.get(tg.dropout(x, tiny, seed=1)) != 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.5, 1.0])
def test_values_that_are_not_finite(dtype: str, p: float, device: Device, isa: str) -> None:
    x = np.tile(np.array([np.nan, np.inf, -np.inf, 1.0], dtype), 16)
    mask = device.ops.dropout(np.ones(64, dtype), p, seed=9) != 0
    y = device.ops.dropout(x, p, seed=9)
    assert np.array_equal(np.isnan(y[mask]), np.isnan(x[mask]))
    assert np.array_equal(y[mask & np.isinf(x)], x[mask & np.isinf(x)])
    dropped = ~mask  # as torch, which multiplies by a mask of zeros
    theirs = torch.nn.functional.dropout(torch.tensor(x), 1.0).numpy()
    assert np.array_equal(y[dropped], theirs[dropped], equal_nan=True)


def test_the_global_stream_moves_on_by_a_quarter_of_the_elements(device: Device) -> None:
    tg.manual_seed(41)
    offset = 0
    for n in (1, 4, 5, 0, 1000, 3):
        assert _random.get_state() == {"seed": 41, "offset": offset}
        y = device.ops.dropout(np.ones(n))
        assert_same_bits(y, tg.dropout(np.ones(n), seed=41, offset=offset))
        offset += -(-n // 4)
    assert _random.get_state()["offset"] == offset


def test_manual_seed_starts_the_stream_anew() -> None:
    x = np.ones((17, 9), "f4")
    tg.manual_seed(8)
    first = [tg.dropout(x, 0.4) for _ in range(3)]
    tg.manual_seed(8)
    again = [tg.dropout(x, 0.4) for _ in range(3)]
    for a, b in zip(first, again, strict=True):
        assert_same_bits(a, b)
    assert not np.array_equal(first[0], first[1])
    tg.manual_seed(9)
    assert not np.array_equal(tg.dropout(x, 0.4), first[0])


def test_the_module_draws_the_same_mask_forward_and_backward() -> None:
    layer, x = tg.nn.Dropout(0.3), np.ones((6, 7))
    tg.manual_seed(1)
    y = layer(x)
    dy = np.arange(1.0, 43).reshape(6, 7)
    np.testing.assert_allclose(layer.backward(dy), dy * (y != 0) / 0.7, rtol=4e-16)
    layer.eval()
    assert layer(x) is x


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_layout_alignment_and_out_give_the_same_bits(
    dtype: str, device: Device, isa: str, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((13, 33)).astype(dtype)
    want = tg.dropout(x, 0.4, seed=5, offset=7)
    for name, form in {**device.layouts(x), "aligned": device.put(x, offset=0)}.items():
        assert_same_bits(tg.dropout(form, 0.4, seed=5, offset=7), want, what=name)
        dx = tg.dropout_backward(form, form, 0.4, seed=5, offset=7)
        assert_same_bits(dx, want, what=name)
    x = device.put(frozen(x))
    with device.guarded_out(x.shape, dtype, 3) as out:
        assert tg.dropout(x, 0.4, seed=5, offset=7, out=out) is out
        assert_same_bits(out, want)
    inplace = x.copy()
    assert tg.dropout(inplace, 0.4, seed=5, offset=7, out=inplace) is inplace
    assert_same_bits(inplace, want)
    memory = device.put(np.zeros(40, dtype))
    with error(ValueError, "dropout", "overlap"):
        tg.dropout(memory[:32], seed=1, out=memory[1:33])


def test_what_is_out_of_range_is_refused_by_name_and_value() -> None:
    x, before = np.ones(8), _random.get_state()
    for p in (-0.1, 1.1, np.nan):
        with error(ValueError, "dropout", "p must be", p):
            tg.dropout(x, p)
        with error(ValueError, "dropout_backward", "p must be", p):
            tg.dropout_backward(x, x, p, seed=1, offset=0)
    for name in ("seed", "offset"):
        cases = ((-1, ValueError), (2**64, ValueError), (1.0, TypeError), (True, TypeError))
        for bad, kind in cases:
            words = {"seed": 1, "offset": 0, name: bad}
            with error(kind, "dropout", name, bad):
                tg.dropout(x, **words)
            with error(kind, "dropout_backward", name, bad):
                tg.dropout_backward(x, x, **words)
    with error(ValueError, "dropout", "offset needs a seed", 3):
        tg.dropout(x, offset=3)
    with error(ValueError, "dropout_backward", "grad_output", "(7,)"):
        tg.dropout_backward(x[1:], x, seed=1, offset=0)
    with error(TypeError, "dropout_backward", "float32"):
        tg.dropout_backward(x.astype("f4"), x, seed=1, offset=0)
    with error(TypeError, "dropout", "int64"):
        tg.dropout(np.ones(8, np.int64))
    with error(TypeError, "dropout", "list"):
        tg.dropout([1.0, 2.0])
    assert _random.get_state() == before, "a call that failed drew from the stream"
