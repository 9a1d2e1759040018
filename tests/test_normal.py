# SPDX-License-Identifier: MIT
"""Normal numbers: the formula beside PyTorch and erfc, and what a stream of them looks like."""

from __future__ import annotations

import math
import os
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import assert_same_bits
from tilegrad import _cpu
from tilegrad import reference as ref

ROOT = Path(__file__).parents[1]
COUNT = 2_000_000  # draws: a statistic of them errs by 1 / sqrt(COUNT) = 7e-4
PINNED = ["-0x1.35ffee5920f61p+0", "0x1.73bf4293dd7a4p+0", "-0x1.f8751d3beae64p-6"]
PINNED_CHECKSUM = 2982213284


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("normal") / "normal_test"
    subprocess.run(
        [os.environ.get("CXX", "g++"), "-std=c++20", "-O2", "-ffp-contract=off", "-Wall", "-Wextra",
         "-Werror", "-DTILEGRAD_BACKEND=cpu", ROOT / "tests/cpp/normal_test.cpp", "-o", target],
        check=True,
    )  # fmt: skip
    return target


def normals_of(program: Path, words: Any) -> Any:
    words = np.asarray(words, np.uint64)
    done = subprocess.run([program], input=words.tobytes(), capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.float64)


def words_and_tails() -> tuple[Any, Any]:
    """Return words over the whole range, dense in the tail and at the borders of the formulas."""
    scales = [1 << bits for bits in range(63)]
    words = [0, 2**63 - 1, *scales, *(scale * 3 // 2 for scale in scales)]
    words += np.linspace(0, 2.0**63 - 1024, 40_001).astype(np.uint64).tolist()
    for border in (0.075, math.exp(-25.0)):  # |q| = 0.425 and sqrt(-ln p) = 5
        middle = int(border * 2.0**64)
        words += [middle + step * (middle >> 40) for step in range(-50, 51)]
    taken = np.array(sorted({w for w in words if w < 2**63}), np.uint64)
    return taken, (taken.astype(np.float64) + 0.5) * 2.0**-64


def test_it_is_the_inverse_of_the_distribution_function_far_into_the_tails(program: Path) -> None:
    words, p = words_and_tails()
    z = normals_of(program, words)
    want = -torch.special.ndtri(torch.from_numpy(p)).numpy()
    np.testing.assert_allclose(z, want, rtol=4e-15, atol=1e-18)
    assert z.max() > 9
    # Back by erfc: an error dz changes the tail p by its factor z dz, as long as z is large.
    back = np.array([math.erfc(value / math.sqrt(2)) / 2 for value in z])
    np.testing.assert_allclose(back, p, rtol=1e-15 * (4 + z.max() ** 2))


def test_it_never_grows_with_the_word_and_the_top_bit_is_its_sign(program: Path) -> None:
    words, _ = words_and_tails()
    z = normals_of(program, words)
    steps = np.diff(z)  # neighbouring words may give one number; rounding allows the last bit
    assert (steps <= 4e-16 * z[:-1]).all()
    assert_same_bits(normals_of(program, words | np.uint64(2**63)), -z)
    assert normals_of(program, [2**63 - 1]).tolist() == [0.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 1001])
def test_an_array_is_made_of_two_words_an_element(n: int, dtype: Any, isa: str) -> None:
    is_double = dtype == np.float64
    for seed, offset in [(0, 0), (2**64 - 1, 7), (12345, 2**64 - 3)]:
        z = _cpu.random_normal((n,), is_double, 0.0, 1.0, seed, offset)
        assert (z.dtype, z.shape) == (dtype, (n,))
        want = ref.normal(n, 0.0, 1.0, seed, offset, dtype)
        np.testing.assert_allclose(z, want, rtol=4 * np.finfo(dtype).eps)
        wide = _cpu.random_normal((n,), True, 0.0, 1.0, seed, offset)
        assert_same_bits(z, wide.astype(dtype))  # rounded once
        scaled = _cpu.random_normal((n,), is_double, -0.3, 0.7, seed, offset)
        assert_same_bits(scaled, (-0.3 + 0.7 * wide).astype(dtype))
        if n > 2:  # the numbers go on where the counter does
            assert_same_bits(z[2:], _cpu.random_normal((n - 2,), is_double, 0.0, 1.0, seed,
                                                       (offset + 1) % 2**64))  # fmt: skip


def test_the_bits_are_pinned_on_every_instruction_set(isa: str) -> None:
    # Only + - * / and sqrt: any machine and any compiler draws these; so does NumPy.
    z = _cpu.random_normal((100_000,), True, 0.0, 1.0, 42, 0)
    assert [value.hex() for value in z[:3].tolist()] == PINNED
    assert zlib.crc32(z.tobytes()) == PINNED_CHECKSUM


@pytest.fixture(scope="module")
def stream() -> Any:
    return _cpu.random_normal((COUNT,), True, 0.0, 1.0, 20, 0)


def test_moments_are_those_of_a_normal(stream: Any) -> None:
    # Variance of the mean of z^k: (2k - 1)!! - ((k - 1)!!)^2 over the count.
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)]:
        error = (stream**power).mean() - moment
        assert abs(error) < 4 * math.sqrt(variance / COUNT), f"moment {power} is off by {error}"


def test_the_distribution_is_normal_by_kolmogorov_and_smirnov(stream: Any) -> None:
    z = np.sort(stream)
    below = torch.special.ndtr(torch.from_numpy(z)).numpy()
    steps = np.arange(COUNT + 1) / COUNT
    distance = max(np.abs(steps[1:] - below).max(), np.abs(below - steps[:-1]).max())
    assert distance * math.sqrt(COUNT) < 1.95  # passed by 999 of 1000 true normal samples


@pytest.mark.parametrize("sigmas", [3.0, 4.0, 4.5])
def test_both_tails_hold_what_they_should(stream: Any, sigmas: float) -> None:
    expected = COUNT * math.erfc(sigmas / math.sqrt(2)) / 2
    for tail in (stream, -stream):
        found = np.count_nonzero(tail > sigmas)
        assert abs(found - expected) < 4 * math.sqrt(expected), f"{found}, expected {expected:.1f}"


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 64])
def test_neighbours_know_nothing_of_each_other(stream: Any, distance: int) -> None:
    one, other = stream[distance:], stream[:-distance]
    for f in (lambda z: z, lambda z: (z * z - 1) / math.sqrt(2)):  # both of variance 1
        assert abs(np.mean(f(one) * f(other))) < 4 / math.sqrt(COUNT)


def test_seeds_and_counters_give_streams_of_their_own() -> None:
    n = 100_000
    starts = [(0, 0), (1, 0), (2**32, 0), (0, n // 2), (0, 2**32)]
    streams = [_cpu.random_normal((n,), True, 0.0, 1.0, *start) for start in starts]
    correlation = np.corrcoef(streams) - np.eye(len(starts))
    assert np.abs(correlation).max() < 4.5 / math.sqrt(n)
