# SPDX-License-Identifier: MIT
"""Compiling kernels of a user for the simulator: errors, files, what a wheel holds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import tilegrad as tg
from tilegrad import _sim_compile

ROOT = Path(__file__).resolve().parent.parent
KERNELS = (ROOT / "tests" / "cpp" / "own_kernels.cu").read_text()


def test_an_error_of_the_compiler_is_shown() -> None:
    text = 'extern "C" __global__ void wrong_kernel(float* y) {\n  y[0] = nothing;\n}\n'
    with pytest.raises(RuntimeError, match=r"(?s)own\.cu cannot be compiled by .*own\.cu:2:.*noth"):
        tg.sim.compile(text, name="own.cu")
    unknown = 'extern "C" __global__ void wrong_kernel(float* y) { cudaFree(y); }'
    with pytest.raises(RuntimeError, match=r"(?s)kernel\.cu cannot be .*undefined .*cudaFree"):
        tg.sim.compile(unknown)
    host = 'extern "C" __global__ void a_kernel(int* y) {}\nvoid f() { a_kernel<<<1, 2>>>(0); }'
    with pytest.raises(RuntimeError, match=r"launch from Python, module\.kernel\[grid, block\]"):
        tg.sim.compile(host)
    struct = 'struct S { int i; };\nextern "C" __global__ void a_kernel(S s) {}'
    with pytest.raises(RuntimeError, match="takes numbers and pointers to numbers"):
        tg.sim.compile(struct)


@pytest.mark.parametrize("text", ["", "mine.cu", "__global__ void a_kernel() {}", KERNELS[:90]])
def test_a_source_without_kernels_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r'extern "C" __global__ void; kernel\.cu has none'):
        tg.sim.compile(text)


def test_a_kernel_cannot_have_the_name_of_what_a_module_has() -> None:
    with pytest.raises(ValueError, match=r"kernel\.cu calls a kernel `kernels`"):
        tg.sim.compile('extern "C" __global__ void kernels(int* y) {}')


def test_without_a_compiler_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    with pytest.raises(RuntimeError, match="there is no no-such-compiler, which CXX names"):
        tg.sim.compile(KERNELS)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"needs a C\+\+20 compiler .*\(install one"):
        tg.sim.compile(KERNELS)


def test_a_file_and_what_it_includes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my kernels"
    folder.mkdir()
    (folder / "twice.cuh").write_text("__device__ inline float twice(float x) { return 2 * x; }\n")
    (folder / "own.cu").write_text(
        '#include <cuda_runtime.h>\n#include "twice.cuh"\n'
        'extern "C" __global__ void twice_kernel(float* y, const float* x) {\n'
        "  y[threadIdx.x] = twice(x[threadIdx.x]);\n}\n"
    )
    module = tg.sim.compile(Path("my kernels/own.cu"))
    x, y = tg.full((1024,), 21.0, device="sim"), tg.empty((1024,), device="sim")
    module.twice_kernel[1, 1024](y, x)
    assert (y.numpy() == 42).all()
    (folder / "own.cu").unlink()  # a trace compiles what was read
    with tg.sim.trace() as t:
        module.twice_kernel[1, 1024](y, x)
    assert {(each.file, each.line) for each in t.sites} == {("my kernels/own.cu", 4)}
    with pytest.raises(FileNotFoundError):
        tg.sim.compile(Path("my kernels/own.cu"))


def test_threads_may_compile_at_once() -> None:
    text = 'extern "C" __global__ void a_kernel(int* y) { __shared__ int s; s = %d; y[0] = s; }'

    def value(number: int) -> int:
        module = tg.sim.compile(text % number)
        y = tg.zeros((1,), dtype="int32", device="sim")
        module.a_kernel[1, 1](y)
        return int(y.item())

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(value, range(4))) == list(range(4))


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import os, sys
        import tilegrad as tg
        y = tg.zeros((1,), dtype="int32", device="sim")
        module = tg.sim.compile('extern "C" __global__ void a_kernel(int* y) { y[0] = 3; }')
        folder, = os.listdir(os.environ["TMPDIR"])
        if os.fork() == 0:
            sys.exit()
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        assert os.listdir(os.environ["TMPDIR"]) == [folder]
        module.a_kernel[1, 1](y)
        print(y.item())
        """
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("3\n", "")
    assert list(tmp_path.iterdir()) == []


# ---- the build ----------------------------------------------------------------------------------


def test_what_is_installed_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package has of csrc/sim what cmake/sim.cmake installs, and no more."""
    text = (ROOT / "cmake" / "sim.cmake").read_text()
    files = re.search(r"install\(FILES (.*?) DESTINATION tilegrad/_sources/csrc/sim\)", text, re.S)
    assert files
    assert "install(DIRECTORY csrc/sim/include DESTINATION tilegrad/_sources/csrc/sim)" in text
    package = tmp_path / "site-packages" / "tilegrad"
    target = package / "_sources" / "csrc" / "sim"
    shutil.copytree(ROOT / "csrc" / "sim" / "include", target / "include")
    for file in files[1].split():
        shutil.copy(ROOT / file, target)
    assert sum(file.stat().st_size for file in target.rglob("*.h*")) < 60_000
    monkeypatch.setattr(_sim_compile, "_PACKAGE", package)
    assert _sim_compile.headers() == target
    x, y = tg.full((32,), 7.0, device="sim"), tg.zeros((32,), device="sim")
    tg.sim.compile(KERNELS).coalesced_kernel[1, 32](y, x, 32)
    assert (y.numpy() == 7).all()
    shutil.rmtree(package)
    with pytest.raises(RuntimeError, match="lacks the simulator's headers"):
        tg.sim.compile(KERNELS)


def test_flags_are_those_of_the_build() -> None:
    text = (ROOT / "cmake" / "sim.cmake").read_text()
    common = re.search(r"set\(trace_options (.*?)\)", text, re.S)
    gcc, clang = re.findall(r"list\(APPEND trace_options (.*?)\)", text, re.S)
    assert common
    for kind, own in (("gnu", gcc), ("clang", clang)):
        flags = " ".join([common[1], own]).replace('"', "").replace("SHELL:", "").split()
        joined = " ".join(_sim_compile.TRACE_FLAGS[kind]).replace("--param=", "--param ")
        assert joined.split() == " ".join(flags).replace("--param=", "--param ").split()
    known = text + (ROOT / "CMakeLists.txt").read_text()
    of_numbers = [flag for flag in _sim_compile.FLAGS if flag.startswith(("-ff", "-fno"))]
    assert len(of_numbers) == 3
    for flag in (*of_numbers, *_sim_compile.X86_FLAGS, *_sim_compile.KIND_FLAGS["gnu"]):
        assert flag in known, flag


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
def test_nvcc_compiles_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "mine.cu").write_text(KERNELS)
    command = ["nvcc", "-std=c++20", "-arch=sm_80", "-ptx", "mine.cu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "mine.ptx").read_text()
    names = re.findall(r"\.visible \.entry (\w+)\(", text)
    assert sorted(names) == sorted(_sim_compile.kernel_names(KERNELS))
