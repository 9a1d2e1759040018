# SPDX-License-Identifier: MIT
"""What is built where, what an archive holds, and the checks of both."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

import check_stubs
import tilegrad as tg

ROOT = Path(__file__).parents[1]
tomllib = pytest.importorskip("tomllib", reason="reads pyproject.toml: needs Python 3.11")
sys.path.insert(0, str(ROOT / "benchmarks"))
pytest.importorskip("elftools", reason="needs pyelftools (the trace extra)")
import check_dependencies  # noqa: E402
import wheel_sizes  # noqa: E402

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
STORED = sorted((ROOT / "benchmarks" / "results").glob("wheel-*-sizes.json"))


# ---- what is built where ------------------------------------------------------------------------


def platform(tmp_path: Path, patch: str = "", **variables: object) -> tuple[int, str]:
    """Run cmake/platform.cmake as if on another system; return its status and what it says."""
    (tmp_path / "sitecustomize.py").write_text(patch)
    cmake = shutil.which("cmake", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if cmake is None:
        pytest.skip("no cmake")
    given = {
        "CMAKE_SIZEOF_VOID_P": 8,
        "CMAKE_CXX_COMPILER_ID": "GNU",
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": "x86_64",
        "Python_EXECUTABLE": sys.executable,
        **variables,
    }
    script = tmp_path / "script.cmake"
    script.write_text(
        f'include({ROOT}/cmake/platform.cmake)\nmessage(STATUS "only ${{TILEGRAD_CPU_ONLY}}")\n'
    )
    done = subprocess.run(
        [cmake, *(f"-D{name}={value}" for name, value in given.items()), "-P", script],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_linux_builds_everything(tmp_path: Path) -> None:
    assert platform(tmp_path) == (0, "-- only OFF")
    assert "include(cmake/platform.cmake)" in (ROOT / "CMakeLists.txt").read_text()


@pytest.mark.parametrize("system", ["Darwin", "Windows"])
def test_elsewhere_the_cpu_alone_is_built_and_said_to_be_untried(
    tmp_path: Path, system: str
) -> None:
    status, text = platform(tmp_path, CMAKE_SYSTEM_NAME=system, CMAKE_CXX_COMPILER_ID="Clang")
    assert status == 0
    assert "-- only ON" in text
    assert f"on {system} only the CPU is built, without simulator and CUDA, and nobody has" in text


@pytest.mark.parametrize(
    ("patch", "variables", "words"),
    [
        (
            "import sysconfig; sysconfig.get_config_vars()['Py_GIL_DISABLED'] = 1",
            {},
            "free-threaded Python is not supported",
        ),
        ("import sys; sys.implementation.name = 'pypy'", {}, "works with CPython;"),
        ("", {"CMAKE_SIZEOF_VOID_P": 4, "CMAKE_SYSTEM_PROCESSOR": "i686"}, "needs a 64-bit Python"),
        ("", {"CMAKE_CXX_COMPILER_ID": "MSVC"}, "set CXX to g++ or clang++"),
        (
            "",
            {"CMAKE_CXX_COMPILER_ID": "Clang", "CMAKE_CXX_COMPILER_FRONTEND_VARIANT": "MSVC"},
            "set CXX to g++ or clang++",
        ),
    ],
    ids=["free-threaded", "pypy", "32-bit", "msvc", "clang-cl"],
)
def test_what_is_not_supported_is_refused_in_words(
    tmp_path: Path, patch: str, variables: dict[str, object], words: str
) -> None:
    status, text = platform(tmp_path, patch, **variables)
    assert status != 0
    assert words in text


def test_a_build_without_nvcc_says_how_to_get_cuda(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tilegrad import backends, cli

    there = backends.importlib.util.find_spec
    monkeypatch.setattr(
        backends.importlib.util,
        "find_spec",
        lambda name: None if name == "tilegrad._cuda" else there(name),
    )
    assert cli.main(["info"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "backend cuda" in line)
    assert (
        "not available: this build of tilegrad has no tilegrad._cuda: it was built without" in line
    )
    assert "pip install 'cuda-toolkit[nvcc,cccl]==13.0.*'" in line


# ---- settings that must agree -------------------------------------------------------------------


def test_wheels_are_for_the_pythons_that_are_supported() -> None:
    wheels = SETTINGS["tool"]["cibuildwheel"]
    versions = [f"3.{word[3:-2]}" for word in wheels["build"].split()]
    assert versions == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    assert SETTINGS["project"]["requires-python"] == f">={versions[0]}"
    assert SETTINGS["tool"]["mypy"]["python_version"] == versions[0]
    assert SETTINGS["tool"]["ruff"]["target-version"] == f"py{versions[0].replace('.', '')}"
    assert "*t-*" in wheels["skip"].split()  # free-threaded
    toolkit = "cuda-toolkit[nvcc,cccl]==13.0.*"
    assert toolkit in wheels["linux"]["before-all"]
    assert toolkit in (ROOT / "cmake" / "cuda.cmake").read_text()


def test_numpy_is_all_that_is_needed_and_licences_let_it_be_used() -> None:
    assert SETTINGS["project"]["dependencies"] == ["numpy>=1.23"]
    names = [check_dependencies.name_of(line) for line in check_dependencies.requirements()]
    assert names == [
        "numpy",
        "safetensors",
        "matplotlib",
        "tqdm",
        "ml_dtypes",
        "pyelftools",
        "torch",
    ]
    for name in names:
        declared = check_dependencies.licence(name)
        assert check_dependencies.PERMISSIVE.search(declared), f"{name}: {declared}"


# ---- archives -----------------------------------------------------------------------------------

NOT_IN_THE_ARCHIVE = (".ci/", ".github/", ".gitignore")


def test_the_source_archive_holds_what_git_holds(tmp_path: Path) -> None:
    pytest.importorskip("scikit_build_core", reason="the test extra has it")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode != 0:
        pytest.skip("not a clone")
    code = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", code, tmp_path], cwd=ROOT, check=True, capture_output=True
    )
    with tarfile.open(tmp_path / f"tilegrad-{tg.__version__}.tar.gz") as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {name for name in tracked.stdout.splitlines() if (ROOT / name).exists()}
    wanted = {name for name in wanted if not name.startswith(NOT_IN_THE_ARCHIVE)}
    assert wanted - files == set()
    assert {name for name in files if name.endswith((".so", ".o", ".pyc"))} == set()
    assert not any(name.startswith((*NOT_IN_THE_ARCHIVE, "build/", "runs/")) for name in files)


def fat_binary(*codes: tuple[int, int, int, int]) -> bytes:
    """Return a fat binary of (kind, capability, flags, bytes)."""
    entries = b"".join(
        struct.pack("<HHIQ12xI8xI20x", kind, 257, 64, size, capability, flags) + bytes(size)
        for kind, capability, flags, size in codes
    )
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries


def test_code_of_every_architecture_is_counted() -> None:
    one = fat_binary((2, 75, 0, 100), (2, 90, 1 << 20, 200))
    two = fat_binary((2, 75, 0, 50), (1, 80, 0, 10))
    section = one + bytes(8) + two
    found = list(wheel_sizes.entries(section))
    assert found == [("sm_75", 164), ("sm_90a", 264), ("sm_75", 114), ("compute_80", 74)]


def test_a_wheel_that_is_too_large_or_lacks_an_architecture_is_refused(tmp_path: Path) -> None:
    good = {
        "bytes": 1,
        "parts": {"_cuda": {}},
        "cuda_code": dict.fromkeys(wheel_sizes.expected(), 1),
    }
    assert wheel_sizes.complaints(good) == []
    assert "20.0 MB, but at most" in wheel_sizes.complaints({**good, "bytes": 20_000_000})[0]
    lacking = {**good, "cuda_code": {"sm_80": 1}}
    assert "CUDA code for ['sm_80'], not [" in wheel_sizes.complaints(lacking)[0]
    assert (
        wheel_sizes.complaints({**lacking, "parts": {"_cpu": {}}}) == []
    )  # no CUDA, none expected
    path = tmp_path / "tilegrad-1-py3.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tilegrad/_cpu.cpython-311.so", b"12345")
        archive.writestr("tilegrad/data/x.gz", b"123")
        archive.writestr("tilegrad/cli.py", b"1")
    parts = wheel_sizes.contents(path)["parts"]
    assert {name: one["unpacked"] for name, one in parts.items()} == {
        "_cpu": 5,
        "data": 3,
        "python": 1,
    }


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.name)
def test_the_page_quotes_the_stored_sizes(path: Path) -> None:
    sizes: dict[str, Any] = json.loads(path.read_text())
    assert wheel_sizes.complaints(sizes) == []
    assert "\n".join(wheel_sizes.table(sizes)) in (ROOT / "docs" / "packaging.md").read_text()


# ---- the stub -----------------------------------------------------------------------------------


def test_a_stub_that_differs_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pybind11_stubgen", reason="the lint extra has it")
    text = check_stubs.COMMITTED.read_text()
    stub = tmp_path / "_cpu.pyi"
    monkeypatch.setattr(check_stubs, "COMMITTED", stub)
    monkeypatch.setattr(sys, "argv", ["check_stubs.py"])
    stub.write_text(text)
    assert check_stubs.main() == 0
    first, _, rest = text.partition("def num_threads")
    assert rest
    stub.write_text(f"{first}def number_of_threads{rest}")
    assert check_stubs.main() == 1
    assert "_cpu.pyi is out of date" in capsys.readouterr().out
    stub.unlink()
    monkeypatch.setattr(sys, "argv", ["check_stubs.py", "--write"])
    assert check_stubs.main() == 0
    assert stub.read_text() == text
