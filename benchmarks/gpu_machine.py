# SPDX-License-Identifier: MIT
"""What a machine has for `make gpu-check`: compiler, GPU, Python packages; what is missing, said.

Nothing here changes a setting of the card: nvidia-smi is only asked.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STEPS = ("build", "tests", "conformance", "sanitizer", "bench")
NVCC_MAJOR = 13
OLDEST_PYTHON = (3, 10)
# package: module, or program, whichever is there; the steps that need it
_PACKAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "numpy": ("numpy", ("build", "tests", "sanitizer", "bench")),
    "pip": ("pip", ("build",)),
    "pybind11": ("pybind11", ("build",)),
    "scikit-build-core": ("scikit_build_core", ("build",)),
    "cmake": ("cmake", ("build",)),
    "ninja": ("ninja", ("build",)),
    "pytest": ("pytest", ("tests",)),
    "hypothesis": ("hypothesis", ("tests",)),
}
_PROGRAMS = ("cmake", "ninja")
# Tests are more, or faster, with these: taken from the folder of wheels where they are missing.
HELPFUL = {"expecttest": "expecttest", "pytest-xdist": "xdist"}
_QUERY = (
    "name", "driver_version", "memory.total", "memory.used", "compute_cap", "clocks.sm",
    "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.limit", "temperature.gpu",
    "persistence_mode", "mig.mode.current",
)  # fmt: skip


@dataclass
class Machine:
    """What was found.

    Attributes:
        nvcc: Path of the compiler, or "".
        nvcc_version: Such as "13.0", or "".
        sanitizer: Path of compute-sanitizer, or "".
        gpu: What nvidia-smi says of the first device, by the names of its query; empty if none.
        wheels: Packages that are to be installed from the folder of wheels.
        missing: In words, what the chosen steps lack.
        left_out: In words, what is done without.
    """

    nvcc: str = ""
    nvcc_version: str = ""
    sanitizer: str = ""
    gpu: dict[str, str] = field(default_factory=dict)
    wheels: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def capability(self) -> int:
        """The compute capability as a number: 90 for 9.0; 0 if unknown."""
        text = self.gpu.get("compute_cap", "")
        found = re.fullmatch(r"(\d+)\.(\d)", text)
        return int(found[1]) * 10 + int(found[2]) if found else 0

    @property
    def label(self) -> str:
        """The GPU's name as part of a file name."""
        name = self.gpu.get("name", "no-gpu").lower().removeprefix("nvidia ")
        return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def packages() -> tuple[str, ...]:
    """Return the names of the Python packages that the steps need or can use."""
    return (*_PACKAGES, *HELPFUL)


def output_of(command: Sequence[str], seconds: float = 60) -> tuple[int, str]:
    """Return the exit status and the output of a short command; 127 if there is no such program."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except FileNotFoundError:
        return 127, f"no such program: {command[0]}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return 126, str(error)
    return done.returncode, (done.stdout + done.stderr).strip()


def find_nvcc() -> str:
    """Return nvcc from CUDACXX, the PATH, the usual folder or pip's toolkit; "" without one."""
    places = [os.environ.get("CUDACXX", ""), shutil.which("nvcc") or ""]
    places.append(_beside_cuda("nvcc"))
    places += [f"{folder}/nvidia/cu13/bin/nvcc" for folder in sys.path]
    return next((p for p in places if p and os.access(p, os.X_OK) and Path(p).is_file()), "")


def _beside_cuda(name: str) -> str:
    return str(Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin" / name)


def version_of(text: str) -> str:
    """Return the release that `nvcc --version` tells, or "".

    >>> version_of("Cuda compilation tools, release 13.0, V13.0.48")
    '13.0'
    """
    found = re.search(r"release (\d+\.\d+)", text)
    return found[1] if found else ""


def gpu_of(text: str) -> dict[str, str]:
    """Return the first row of nvidia-smi's answer in CSV.

    >>> gpu_of("NVIDIA H200, 580.1")["name"]
    'NVIDIA H200'
    """
    rows = [line for line in text.splitlines() if line.strip()]
    values = [value.strip() for value in rows[0].split(",")] if rows else []
    return {_QUERY[i]: value for i, value in enumerate(values) if i < len(_QUERY)}


def ask_gpu() -> tuple[dict[str, str], str]:
    """Return what nvidia-smi says of the first device, or why it says nothing."""
    query = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader"]
    status, text = output_of(query)
    if status != 0:  # an old driver may not know a word of the query: what is needed is older
        status, text = output_of([*query[:1], "--query-gpu=" + ",".join(_QUERY[:5]), query[2]])
    return ({}, text) if status != 0 or not text else (gpu_of(text), "")


def has_package(name: str) -> bool:
    """Tell whether this Python has a package, or the PATH a program of that name."""
    module = HELPFUL.get(name) or _PACKAGES.get(name, (name, ()))[0]
    if importlib.util.find_spec(module) is not None:
        return True
    return name in _PROGRAMS and shutil.which(name) is not None


def wheel_of(name: str, folder: Path | None) -> Path | None:
    """Return the wheel of a package in a folder, or None."""
    if folder is None or not folder.is_dir():
        return None
    wanted = name.replace("-", "_").lower()
    for path in sorted(folder.glob("*.whl")):
        if path.name.split("-")[0].lower().replace(".", "_") == wanted:
            return path
    return None


def probe(
    steps: Sequence[str], wheels: Path | None, has: Callable[[str], bool] = has_package
) -> Machine:
    """Look at the machine and say what the chosen steps lack.

    Args:
        steps: What is to be run.
        wheels: Folder of wheels for packages that are not installed.
        has: Whether this Python has a package.
    """
    found = Machine()
    say = found.missing.append
    if sys.version_info[:2] < OLDEST_PYTHON:
        say(f"Python 3.10 or later; this is {platform.python_version()} (PYTHON=... names another)")
    if wheels is not None and not wheels.is_dir():
        say(f"the folder of WHEELS; there is no {wheels}")
    _compiler(found, steps)
    found.gpu, why = ask_gpu()
    if not found.gpu:
        say(f"a CUDA device: nvidia-smi says {why.splitlines()[0] if why else 'nothing'!r}")
    elif not found.capability:
        say(f"the compute capability of {found.gpu['name']}: nvidia-smi does not tell it")
    for name, (_, needed) in _PACKAGES.items():
        if set(needed).isdisjoint(steps) or has(name):
            continue
        if wheel_of(name, wheels) is not None:
            found.wheels.append(name)
        else:
            say(f"the Python package {name} (install it, or put its wheel into WHEELS=folder)")
    if "build" in steps:
        found.wheels += [name for name in HELPFUL if not has(name) and wheel_of(name, wheels)]
    if "sanitizer" in steps:
        usual = _beside_cuda("compute-sanitizer")
        found.sanitizer = shutil.which("compute-sanitizer") or (
            usual if os.access(usual, os.X_OK) else ""
        )
        if not found.sanitizer:
            say("compute-sanitizer, a part of CUDA's toolkit (or leave out the step sanitizer)")
    if not has("torch") and {"tests", "bench"} & set(steps):
        found.left_out.append("torch is missing: tests and benchmarks beside it are left out")
    return found


def _compiler(found: Machine, steps: Sequence[str]) -> None:
    if {"build", "conformance"}.isdisjoint(steps):
        return
    found.nvcc = find_nvcc()
    if not found.nvcc:
        found.missing.append("nvcc 13: not in CUDACXX, on the PATH or in /usr/local/cuda/bin")
    else:
        status, text = output_of([found.nvcc, "--version"])
        found.nvcc_version = version_of(text) if status == 0 else ""
        if found.nvcc_version.split(".")[0] != str(NVCC_MAJOR):
            found.missing.append(
                f"nvcc 13: {found.nvcc} is {found.nvcc_version or 'of an unknown version'}"
            )
    if shutil.which(os.environ.get("CXX", "g++")) is None and shutil.which("c++") is None:
        found.missing.append("a C++20 compiler (g++, or the one that CXX names)")


def describe(machine: Machine) -> dict[str, Any]:
    """Return what a result file must say about the machine."""
    model = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass  # not Linux: the platform's own word must do
    return {
        "gpu": machine.gpu,
        "nvcc": machine.nvcc_version,
        "cpu": model,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
