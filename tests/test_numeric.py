# SPDX-License-Identifier: MIT
"""Conversions of 16-bit floats in plain C++, against NumPy and PyTorch: every bit pattern."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("numeric") / "numeric_test"
    subprocess.run(
        [os.environ.get("CXX", "g++"), "-std=c++20", "-O2", "-Wall", "-Wextra", "-Werror",
         "-DTILEGRAD_BACKEND=sim", "-DTILEGRAD_SIM", "-I", ROOT / "csrc/sim/include",
         ROOT / "tests/cpp/numeric_test.cpp", "-o", target],
        check=True,
    )  # fmt: skip
    return target


def convert(program: Path, mode: str, x: Any, dtype: Any) -> Any:
    done = subprocess.run([program, mode], input=x.tobytes(), capture_output=True, check=True)
    return np.frombuffer(done.stdout, dtype)


def interesting_floats() -> Any:
    """Every 16-bit float, the floats around each and around the middle of each pair, and random."""
    halves = np.arange(2**16, dtype=np.uint16)
    wide = [halves.view(np.float16).astype(np.float32)]
    wide.append((halves.astype(np.uint32) << 16).view(np.float32))
    bits = [w.view(np.uint32) for w in wide]
    bits.append(np.random.default_rng(0).integers(0, 2**32, 2**20, dtype=np.uint32))
    near = [b + np.uint32(d % 2**32) for b in bits for d in (-1, 0, 1, 0xFFF, 0x1000, 0x1001)]
    near += [b + np.uint32(d) for b in bits for d in (0x7FFF, 0x8000, 0x8001)]
    return np.concatenate(near).view(np.float32)


def same(actual: Any, expected: Any, is_nan: Any) -> None:
    wrong = np.flatnonzero((actual != expected) & ~is_nan)
    assert not wrong.size, f"{wrong.size} differ; first at {wrong[0]}: {actual[wrong[0]]:#x}"


def test_widening_is_exact(program: Path) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    wide = convert(program, "widen float16", bits, np.float32)
    np.testing.assert_array_equal(wide, bits.view(np.float16).astype(np.float32))
    np.testing.assert_array_equal(np.signbit(wide), bits >> 15 == 1)
    wide = convert(program, "widen bfloat16", bits, np.uint32)
    np.testing.assert_array_equal(wide, bits.astype(np.uint32) << 16)


def test_narrowing_rounds_to_nearest_even(program: Path) -> None:
    x = interesting_floats()
    with np.errstate(all="ignore"):
        expected = x.astype(np.float16).view(np.uint16)
    got = convert(program, "narrow float16", x, np.uint16)
    same(got, expected, np.isnan(x))
    assert np.isnan(got.view(np.float16)[np.isnan(x)]).all()
    theirs = torch.from_numpy(x.copy()).to(torch.bfloat16).view(torch.int16).numpy()
    got = convert(program, "narrow bfloat16", x, np.uint16)
    same(got, theirs.view(np.uint16), np.isnan(x))
    assert np.isnan((got.astype(np.uint32) << 16).view(np.float32)[np.isnan(x)]).all()
