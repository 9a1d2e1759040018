# SPDX-License-Identifier: MIT
"""The instructions of csrc/cuda/ptx on the CPU: layouts from the PTX ISA, golden files of a GPU."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
SCHEDULES = ("forward/eager", "reverse/lazy", "random:7")
# The simulator's own device: a file that it recorded proves nothing.
SIMULATOR = "simulator"

Build = Callable[..., Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A function that compiles a program with the simulator's runtime, which is compiled once."""
    folder = tmp_path_factory.mktemp("ptx")
    compiler: list[str | Path] = [
        os.environ.get("CXX", "g++"), "-std=c++20", "-O1", "-ffp-contract=off", "-Wall", "-Wextra",
        "-Wno-unknown-pragmas", "-DTILEGRAD_BACKEND=sim", "-DTILEGRAD_SIM",
        "-I", ROOT / "csrc", "-I", ROOT / "csrc/sim/include",
    ]  # fmt: skip
    # trace*.cpp belongs to the traced build alone.
    sources = sorted((ROOT / "csrc/sim").glob("[!t]*.cpp"))
    jobs = [
        subprocess.Popen([*compiler, "-c", source, "-o", folder / f"{source.stem}.o"])
        for source in sources
    ]
    assert [job.wait() for job in jobs] == [0] * len(jobs)
    runtime = [folder / f"{source.stem}.o" for source in sources]

    def compile_program(*sources: str) -> Path:
        program = folder / Path(sources[0]).stem
        subprocess.run(
            [*compiler, "-x", "c++", *(ROOT / source for source in sources), "-x", "none",
             *runtime, "-ldl", "-lpthread", "-o", program],
            check=True,
        )  # fmt: skip
        return program

    return compile_program


def run(program: Path, *arguments: str | Path, **variables: str) -> tuple[int, str]:
    done = subprocess.run(
        [program, *arguments],
        env={**os.environ, "TILEGRAD_SIM_CC": "90", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "checks"),
    [
        ("ptx_layouts_test", 63),
        ("wgmma_registers_test", 66),
        ("ptx_async_test", 34),
        ("ptx_tf32_test", 21),
    ],
)
def test_bodies_follow_the_isa(build: Build, name: str, checks: int) -> None:
    status, text = run(build(f"tests/cpp/{name}.cpp"))
    assert status == 0, text
    assert "FAIL" not in text
    assert text.count("\nok ") == checks, text


@pytest.fixture(scope="module")
def conformance(build: Build) -> Path:
    return build("csrc/cuda/conformance.cu", "csrc/cuda/device.cu")


def test_conformance_replays_what_it_recorded(conformance: Path, tmp_path: Path) -> None:
    """The harness itself: files of the simulator agree with it, and a changed one does not."""
    folder = tmp_path / "golden"
    status, text = run(conformance, "record", folder)
    assert status == 0, text
    files = sorted(folder.glob("*.json"))
    assert f"recorded {len(files)} cases" in text
    assert all(SIMULATOR in file.read_text() for file in files)
    expected = f"{len(files)} golden files stored, {len(files)} replayed, 0 differ, 0 skipped"
    for schedule in SCHEDULES:
        status, text = run(conformance, "replay", folder, TILEGRAD_SIM_SCHEDULE=schedule)
        assert (status, text.strip()) == (0, expected)
    for file in files:  # one changed digit in each
        text = file.read_text()
        digit = text.index('"words": "') + len('"words": "') + 1
        file.write_text(text[:digit] + ("0" if text[digit] != "0" else "7") + text[digit + 1 :])
    status, text = run(conformance, "replay", folder)
    assert status == 1, text
    assert f"{len(files)} replayed, {len(files)} differ" in text


def test_conformance_names_what_is_wrong(conformance: Path, tmp_path: Path) -> None:
    assert run(conformance, "replay", tmp_path) == (
        3,
        "0 golden files stored, 0 replayed, 0 differ, 0 skipped\n",
    )
    assert run(conformance)[0] == 2
    (tmp_path / "other.json").write_text('{"case": "other", "device": "x", "words": "00000000"}')
    status, text = run(conformance, "replay", tmp_path)
    assert status == 1
    assert "other.json differs from x at word 0" in text


def test_golden_files_of_a_gpu(conformance: Path) -> None:
    """What a real GPU left, on the CPU bodies. Nothing is checked while no file is stored."""
    files = sorted(GOLDEN.glob("*.json"))
    if not files:
        pytest.skip("0 golden files stored in tests/golden: no GPU has recorded any")
    assert not [file.name for file in files if SIMULATOR in file.read_text()]
    for schedule in SCHEDULES:
        status, text = run(conformance, "replay", GOLDEN, TILEGRAD_SIM_SCHEDULE=schedule)
        assert status == 0, text
        assert f"{len(files)} golden files stored, {len(files)} replayed, 0 differ" in text
