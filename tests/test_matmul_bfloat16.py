# SPDX-License-Identifier: MIT
"""bfloat16 products on the CPU: edges of tiles and blocks, layouts, threads, AMX in emulation.

|error| <= half a spacing of the result + k eps |a| |b| in float32, against float64 of the rounded
operands. AMX is run by its own machine code, which tests/cpp/amx_emulator.cpp executes where the
processor cannot; where it can, the tests with an `isa` run it and the emulator is left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import bfloat16_inputs as checks
import tilegrad as tg
from tilegrad import _cpu

TESTS = Path(__file__).parent
HAS_AMX = "amx" in _cpu.supported_isas()
emulates_amx = pytest.mark.skipif(
    HAS_AMX or "avx512" not in _cpu.supported_isas(),
    reason="emulates AMX beside AVX-512, on a processor that has the latter only",
)


@pytest.mark.parametrize("m", checks.EDGES)
def test_edges_of_tiles(isa: str, m: int, rng: np.random.Generator) -> None:
    for i, n in enumerate(checks.EDGES):
        checks.check_product(m, n, checks.STEPS[(3 * m + i) % 10], rng)


@pytest.mark.parametrize("k", checks.STEPS)
def test_steps_of_k(isa: str, k: int, rng: np.random.Generator) -> None:
    for m, n in [(1, 40), (17, 33), (40, 1), (32, 32)]:
        checks.check_product(m, n, k, rng)


@pytest.mark.parametrize("sizes", checks.BLOCKS, ids=str)
def test_edges_of_blocks(
    isa: str, threads: int, sizes: tuple[int, int, int], rng: np.random.Generator
) -> None:
    checks.check_product(*sizes, rng)


@pytest.mark.parametrize("sizes", [(18, 35, 67), (32, 32, 64), (140, 20, 530)], ids=str)
def test_layouts_do_not_show(
    isa: str, sizes: tuple[int, int, int], rng: np.random.Generator
) -> None:
    checks.check_layouts(rng, sizes)


def test_batches(isa: str, threads: int, rng: np.random.Generator) -> None:
    checks.check_batches(rng)


@pytest.mark.parametrize("sizes", [(33, 40, 18), (1, 70, 65), (130, 33, 40)], ids=str)
def test_linear(isa: str, sizes: tuple[int, int, int], rng: np.random.Generator) -> None:
    checks.check_linear(rng, *sizes)
    checks.check_linear_backward(rng, *sizes)


def test_infinity_and_nan(isa: str) -> None:
    checks.check_special_values()


def test_threads_do_not_show(isa: str, rng: np.random.Generator) -> None:
    checks.check_threads(rng)


def test_a_zero_size_gives_zeros(isa: str) -> None:
    for m, n, k in [(0, 3, 4), (3, 0, 4), (3, 4, 0)]:
        a, b = (
            np.ones((m, k), ml_dtypes.bfloat16),
            np.ones((k, n), ml_dtypes.bfloat16),
        )
        c = tg.matmul(a, b)
        assert c.shape == (m, n)
        assert not c.any()


# ---- AMX ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("amx") / "amx_emulator.so"
    subprocess.run(
        [os.environ.get("CXX", "g++"), "-std=c++20", "-O2", "-mavx2", "-mfma", "-ffp-contract=off",
         "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", TESTS / "cpp/amx_emulator.cpp",
         "-o", library],
        check=True,
    )  # fmt: skip
    return library


def emulated(emulator: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run Python with the emulator in it."""
    paths = [str(TESTS), str(Path(tg.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "LD_PRELOAD": str(emulator)}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@emulates_amx
def test_amx_in_emulation(emulator: Path) -> None:
    done = emulated(emulator, TESTS / "amx_runs.py")
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["tdpbf16ps"] > 10_000
    # an instruction multiplies two tiles; four of them share four loads, at the edges fewer
    assert counts["tdpbf16ps"] < counts["tileload"] < 3 * counts["tdpbf16ps"]
    assert counts["ldtilecfg"] == counts["tilerelease"] > 100


CODE = """
import ctypes, mmap, sys
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex(sys.argv[1]) + b"\\xc3")
data = ctypes.create_string_buffer(bytes.fromhex(sys.argv[2]), 64)
ctypes.CFUNCTYPE(None, ctypes.c_void_p)(ctypes.addressof(ctypes.c_char.from_buffer(code)))(
    ctypes.addressof(data))
"""
CONFIG = "c4e2784907"  # ldtilecfg [rdi]
ZERO = "c4e27b49c0"  # tilezero tmm0
MULTIPLY = "c4e2725cc2"  # tdpbf16ps tmm0, tmm2, tmm1


def config(**tiles: tuple[int, int]) -> str:
    """Return a configuration: rows and bytes of a row by tile."""
    data = bytearray(64)
    data[0] = 1
    for name, (rows, size) in tiles.items():
        number = int(name[-1])
        data[16 + 2 * number] = size
        data[48 + number] = rows
    return data.hex()


@emulates_amx
@pytest.mark.parametrize(
    ("code", "data", "message"),
    [
        (ZERO, config(), "before ldtilecfg"),
        (CONFIG + ZERO, config(), "not configured"),
        (CONFIG, config(t0=(17, 64)), "16 x 64"),
        (CONFIG, config(t0=(16, 0)), "no bytes"),
        (CONFIG, "02" + config()[2:], "palette"),
        (CONFIG + MULTIPLY, config(t0=(16, 64), t1=(16, 64), t2=(15, 64)), "do not fit"),
        ("0f0b", config(), "not a tile instruction"),
        (CONFIG + MULTIPLY, config(t0=(16, 64), t1=(16, 64), t2=(16, 64)), ""),
    ],
)
def test_the_emulator_refuses_what_hardware_would(
    emulator: Path, code: str, data: str, message: str
) -> None:
    done = emulated(emulator, "-c", CODE, code, data)
    assert (done.returncode == 0) == (message == ""), done.stderr
    assert message in done.stderr


@pytest.mark.skipif(HAS_AMX, reason="this processor has AMX")
def test_amx_is_refused_where_there_is_none() -> None:
    with pytest.raises(ValueError, match=r"got 'amx' \(this processor supports generic"):
        _cpu._set_isa("amx")


@pytest.mark.skipif(shutil.which("objdump") is None, reason="there is no objdump")
def test_the_library_holds_tile_instructions() -> None:
    """And no instruction of the avx512_bf16 set, which makes zeros of subnormal numbers."""
    code = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", _cpu.__file__], capture_output=True, check=True
    ).stdout
    for instruction in (b"ldtilecfg", b"tileloadd", b"tdpbf16ps", b"tilestored", b"tilerelease"):
        assert instruction in code, instruction
    assert b"vdpbf16ps" not in code
