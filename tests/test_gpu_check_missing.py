# SPDX-License-Identifier: MIT
"""`make gpu-check` says first, in clear words, what a machine lacks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpu_check_runs import BENCHMARKS, module, program

SMI = (
    "NVIDIA H200, 580.1, 143771 MiB, 0 MiB, 9.0, 345 MHz, 3201 MHz, 1980 MHz, 3201 MHz, 700.00 W, "
    "30, Disabled, Disabled"
)


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which everything is there that is asked for."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program(folder, "nvidia-smi", f"echo '{SMI}'")
    program(folder, "nvcc", "echo 'Cuda compilation tools, release 13.0, V13.0.48'")
    program(folder, "compute-sanitizer", "exit 0")
    program(folder, "g++", "exit 0")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "no-cuda"))
    monkeypatch.delenv("CUDACXX", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    return folder


def probe(
    steps: tuple[str, ...] | None = None, wheels: Path | None = None, without: str = ""
) -> Any:
    machine = module("gpu_machine")
    return machine.probe(steps or machine.STEPS, wheels, lambda name: name != without)


def test_a_complete_machine_lacks_nothing(fakes: Path) -> None:
    found = probe()
    assert (found.missing, found.left_out, found.wheels) == ([], [], [])
    assert (found.nvcc, found.nvcc_version) == (str(fakes / "nvcc"), "13.0")
    assert (found.capability, found.label) == (90, "h200")
    assert found.gpu["clocks.sm"] == "345 MHz"


@pytest.mark.parametrize(
    ("name", "replaced", "word"),
    [
        ("nvcc", None, "nvcc 13: not in CUDACXX, on the PATH"),
        ("nvcc", "echo 'release 12.4, V12.4.1'", "nvcc 13: .* is 12.4"),
        ("nvcc", "exit 1", "nvcc 13: .* is of an unknown version"),
        ("nvidia-smi", None, "a CUDA device: nvidia-smi says 'no such program: nvidia-smi'"),
        ("nvidia-smi", "echo 'No devices were found'; exit 6", "says 'No devices were found'"),
        ("nvidia-smi", "echo 'NVIDIA T, 1, 2, 3, [N/A]'", "compute capability of NVIDIA T"),
        ("compute-sanitizer", None, "compute-sanitizer, a part of CUDA's toolkit"),
        ("g++", None, r"a C\+\+20 compiler"),
    ],
)
def test_a_missing_program_is_named(
    fakes: Path, name: str, replaced: str | None, word: str
) -> None:
    (fakes / name).unlink()
    if replaced:
        program(fakes, name, replaced)
    (line,) = probe().missing
    assert re.search(word, line)


@pytest.mark.parametrize(
    "name",
    ["numpy", "pip", "pybind11", "scikit-build-core", "cmake", "ninja", "pytest", "hypothesis"],
)
def test_a_missing_package_is_named_or_found_among_the_wheels(
    fakes: Path, tmp_path: Path, name: str
) -> None:
    (line,) = probe(without=name).missing
    assert line == f"the Python package {name} (install it, or put its wheel into WHEELS=folder)"
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "pybind11_global-3.0-py3-none-any.whl").touch()  # another package
    assert len(probe(wheels=wheels, without=name).missing) == 1
    (wheels / f"{name.replace('-', '_')}-1.0-py3-none-any.whl").touch()
    found = probe(wheels=wheels, without=name)
    assert (found.missing, found.wheels) == ([], [name])


def test_only_what_the_chosen_steps_need_is_asked_for(fakes: Path) -> None:
    for name in ("nvcc", "compute-sanitizer", "g++"):
        (fakes / name).unlink()
    assert probe(("tests",), without="cmake").missing == []
    assert len(probe(("conformance",), without="pytest").missing) == 2


def test_torch_is_done_without_with_a_word(fakes: Path) -> None:
    found = probe(without="torch")
    assert found.missing == []
    assert found.left_out == ["torch is missing: tests and benchmarks beside it are left out"]
    assert probe(("conformance",), without="torch").left_out == []


def test_an_old_python_is_named(fakes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module("gpu_machine"), "OLDEST_PYTHON", (99, 0))
    (line,) = probe().missing
    assert line.startswith("Python 3.10 or later; this is 3.")


def test_command_says_first_what_is_missing(fakes: Path, tmp_path: Path) -> None:
    (fakes / "nvcc").unlink()
    (fakes / "nvidia-smi").unlink()
    out, work = tmp_path / "out", tmp_path / "work"
    command = [sys.executable, str(BENCHMARKS / "gpu_check.py"), "--steps", "conformance",
               "--wheels", str(tmp_path / "nowhere"), "--out", str(out),
               "--work", str(work)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert lines[0] == "gpu-check: nothing was begun, because this machine lacks"
    assert [line[4:].split()[0] for line in lines[1:]] == ["the", "nvcc", "a"]
    assert not out.exists()
    assert not work.exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--steps", "build,nonsense"], "got nonsense"),
        (["--steps", ""], "got ''"),
        (["--minutes", "0"], "must be above 0; got 0"),
    ],
)
def test_bad_options_are_refused(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        module("gpu_check").main(arguments)
    assert stop.value.code == 2
    assert text in capsys.readouterr().err


def test_steps_are_run_in_their_order() -> None:
    args = module("gpu_check").parser().parse_args(["--steps", "bench,build"])
    assert args.steps == ["build", "bench"]
