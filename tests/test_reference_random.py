# SPDX-License-Identifier: MIT
"""The oracle's random numbers: Philox's known answers, uniform numbers, dropout."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from oracle_checks import assert_close, assert_gradient, rng_for
from tilegrad import reference as ref

ONES = 0xFFFFFFFF
PI_COUNTER, PI_KEY = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0]
PHILOX_VECTORS = [  # Random123, kat_vectors
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([ONES] * 4, [ONES] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (PI_COUNTER, PI_KEY, [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
]


@pytest.mark.parametrize(("counter", "key", "words"), PHILOX_VECTORS)
def test_philox_known_answers(counter: list[int], key: list[int], words: list[int]) -> None:
    assert ref.philox4x32_10(counter, key).tolist() == words
    batch = ref.philox4x32_10([[counter] * 3] * 2, key)
    assert batch.shape == (2, 3, 4)
    assert (batch == np.array(words)).all()


def test_random_words_use_a_64_bit_counter_and_key() -> None:
    seed, offset = 0x299F31D0A4093822, 2**32 - 1
    words = ref.random_words(10, seed, offset)
    key = [0xA4093822, 0x299F31D0]
    expected = ref.philox4x32_10([[ONES, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]], key).reshape(-1)
    assert words.tolist() == expected[:10].tolist()
    last = ref.random_words(8, seed, 2**64 - 1)  # the counter wraps
    assert last[:4].tolist() == ref.philox4x32_10([ONES, ONES, 0, 0], key).tolist()
    assert last[4:].tolist() == ref.random_words(4, seed, 0).tolist()
    assert ref.random_words(0, seed, 0).shape == (0,)


@pytest.mark.parametrize(("dtype", "bits"), [(np.float32, 24), (np.float64, 32)])
def test_uniform_is_the_top_bits_as_a_fraction(dtype: Any, bits: int) -> None:
    words = ref.random_words(1001, 5, 3)
    u = ref.uniform(1001, 0.0, 1.0, 5, 3, dtype)
    assert u.dtype == dtype
    assert [float(v) * 2**bits for v in u] == [int(w) >> (32 - bits) for w in words]
    for low, high in ((-0.3, 0.7), (1.00000003, 2.0)):  # no float32: rounded once, at the end
        scaled = ref.uniform(1001, low, high, 5, 3, dtype)
        assert scaled.dtype == dtype
        expected = [dtype(low + (high - low) * float(v)) for v in u]
        assert scaled.tolist() == expected
        if dtype == np.float32:
            stepwise = dtype(low) + (dtype(high) - dtype(low)) * u
            assert scaled.tolist() != stepwise.tolist()


def test_uniform_has_the_moments_of_a_uniform() -> None:
    u = ref.uniform(200_000, -1.0, 1.0, 0, 0).astype(np.float64)
    assert abs(u.mean()) < 5 * math.sqrt(1 / 3 / u.size)
    assert abs((u**2).mean() - 1 / 3) < 5 * math.sqrt(4 / 45 / u.size)
    assert u.min() >= -1
    assert u.max() <= 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normal_inverts_the_tail_of_64_bits(dtype: Any) -> None:
    words = ref.random_words(2002, 5, 3).astype(object).reshape(-1, 2)
    z = ref.normal(1001, 0.0, 1.0, 5, 3, np.float64)
    for (high, low), value in zip(words, z, strict=True):
        k = (int(high) << 32 | int(low)) % 2**63
        p = float((2 * k + 1) / 2**65)  # whole numbers: rounded once
        assert (value < 0) == (high >= 2**31)
        assert math.erfc(abs(value) / math.sqrt(2)) / 2 == pytest.approx(p, rel=1e-13)
    scaled = ref.normal(1001, -0.3, 0.7, 5, 3, dtype)
    assert scaled.dtype == dtype
    assert scaled.tolist() == (-0.3 + 0.7 * z).astype(dtype).tolist()
    assert abs(z.mean()) < 5 / math.sqrt(z.size)
    assert abs((z**2).mean() - 1) < 5 * math.sqrt(2 / z.size)
    assert ref.normal(0, 0.0, 1.0, 5, 3).shape == (0,)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(), (3,), (7, 5), (0,), (2, 3, 4)])
def test_dropout_keeps_words_at_or_above_the_threshold(p: float, shape: tuple[int, ...]) -> None:
    rng = rng_for(p, shape)
    x, dy = np.asarray(rng.normal(size=shape)), np.asarray(rng.normal(size=shape))
    y = ref.dropout(x, p, seed=11, offset=4)
    words = ref.random_words(x.size, 11, 4).tolist()
    expected = [v / (1 - p) if w >= p * 2**32 else 0.0 for v, w in zip(x.flat, words, strict=True)]
    assert_close(y, np.reshape(expected, shape))
    dx = ref.dropout_backward(dy, x, p, seed=11, offset=4)
    assert_gradient(lambda x: ref.dropout(x, p, seed=11, offset=4), x, dy, dx)
    assert_close(ref.dropout(x, p, False, seed=11), x)
    assert_close(ref.dropout_backward(dy, x, p, False, seed=11), dy)


def test_dropout_keeps_a_word_equal_to_the_threshold() -> None:
    words = ref.random_words(8, 2, 0).tolist()
    for i, word in enumerate(words):
        assert ref.dropout(np.ones(8), word / 2**32, seed=2)[i] > 0
        assert ref.dropout(np.ones(8), (word + 1) / 2**32, seed=2)[i] == 0


def test_dropout_rate_and_offset() -> None:
    x = np.ones(100_000)
    y = ref.dropout(x, 0.3, seed=1)
    assert abs((y == 0).mean() - 0.3) < 5 * math.sqrt(0.21 / x.size)
    assert_close(ref.dropout(x[:50_000], 0.3, seed=1, offset=12_500), y[50_000:])
