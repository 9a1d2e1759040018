# SPDX-License-Identifier: MIT
"""matmul on the CPU: the choice of a path, and results beside every border that it knows."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from helpers import FLOATS, aligned, assert_close, guarded_out, tolerance
from matmul_inputs import TRANSPOSES, mixed, swapped
from tilegrad import _cpu
from tilegrad.bench.cases import around

ROOT = Path(__file__).parents[1]


def test_every_choice_is_legal(tmp_path: Path) -> None:
    program = tmp_path / "matmul_path_test"
    subprocess.run(
        [os.environ.get("CXX", "g++"), "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror",
         "-DTILEGRAD_BACKEND=cpu", ROOT / "tests/cpp/matmul_path_test.cpp",
         ROOT / "csrc/cpu/matmul_path.cpp", "-o", program],
        check=True,
    )  # fmt: skip
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


FLAGS = {
    "generic": ["-march=x86-64-v2"],
    "avx2": ["-march=x86-64-v2", "-mavx2", "-mfma", "-mbmi2"],
    "avx512": ["-march=x86-64-v2", "-mavx2", "-mfma", "-mbmi2", "-mavx512f", "-mavx512dq",
               "-mavx512bw", "-mavx512vl"],
}  # fmt: skip


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="flags of x86-64")
@pytest.mark.parametrize("name", FLAGS)
def test_a_panel_is_packed_within_its_memory(name: str, tmp_path: Path) -> None:
    if name not in _cpu.supported_isas():
        pytest.skip(f"this processor has no {name}")
    program = tmp_path / "matmul_pack_test"
    subprocess.run(
        [os.environ.get("CXX", "g++"), "-std=c++20", "-O1", "-Wall", "-Wextra", "-Wno-psabi",
         "-Werror", *FLAGS[name], "-DTILEGRAD_BACKEND=cpu", f"-DTILEGRAD_ISA={name}",
         f"-DTILEGRAD_ISA_{name.upper()}=1", ROOT / "tests/cpp/matmul_pack_test.cpp",
         "-o", program],
        check=True,
    )  # fmt: skip
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# (m, n, k) beside the tiles of every ISA and the borders between paths: the heights 4, 6 and 14 and
# multiples; widths of vectors and of the tile along k (3, 6); the sums 32 (short), 128 (long),
# 256 to 1024 (blocks of k); 8 min(m, n) = k, 32 and 64 rows (along k), 16 columns (narrow), 128
# rows (few).
EDGES = [
    *((m, 35, 100) for edge in (4, 8, 14, 16) for m in around(edge)),
    *((5, n, 70) for edge in (6, 12, 18, 32, 64) for n in around(edge)),
    *((7, 50, k) for edge in (16, 56) for k in around(edge)),
    *((m, 80, 513) for edge in (32, 64) for m in around(edge)),
    *((3, 13, k) for edge in (256, 512, 1024, 2048) for k in around(edge)),
    *((20, 40, k) for edge in (128, 160, 512) for k in around(edge)),
    *((70, n, 129) for edge in (3, 6, 16) for n in around(edge)),
    *((m, 80, k) for m in (*around(12), *around(28)) for k in around(32)),
    *((m, 33, 60) for m in around(128)),
    *((43, n, 10) for n in around(64)),
    *((m, 70, 40) for m in (*around(42), *around(280))),
]


@pytest.mark.cpu_only("the paths are the cpu's")
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shapes", [EDGES[i::6] for i in range(6)], ids=range(6))
def test_error_is_bounded_beside_every_border(
    isa: str,
    threads: int,
    shapes: list[tuple[int, int, int]],
    dtype: Any,
    rng: np.random.Generator,
) -> None:
    for m, n, k in shapes:
        a, b = mixed(rng, (m, k), dtype), mixed(rng, (k, n), dtype)
        wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
        expected = wide_a @ wide_b
        bound = tolerance(dtype, k) * (np.abs(wide_a) @ np.abs(wide_b))
        for ta, tb in TRANSPOSES:
            left, right = aligned(swapped(a, ta), 1), aligned(swapped(b, tb), 3)
            with guarded_out((m, n), dtype, offset=5) as out:
                tg.matmul(left, right, transpose_a=ta, transpose_b=tb, out=out)
            assert_close(out, expected, bound, what=f"{(m, n, k)}, transposed {ta}, {tb}")
