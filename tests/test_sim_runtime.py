# SPDX-License-Identifier: MIT
"""The simulator's runtime by itself, without Python bindings: tests/cpp/sim_test.cpp."""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = sorted((ROOT / "csrc" / "sim").glob("*.cpp"))
DRIVERS = [
    ROOT / "tests" / "cpp" / name for name in ("sim_test.cpp", "sim_faults.cpp", "sim_resident.cpp")
]
FLAGS = ["-std=c++20", "-O2", "-g1", "-Wall", "-Wextra", "-Werror", "-DTILEGRAD_SIM"]
SCHEDULES = [
    "forward/eager",
    "forward/lazy",
    "reverse/eager",
    "reverse/lazy",
    "random:1",
    "random:2",
    "random:3/eager",
    "random:4/lazy",
]
FAULTS = [
    "divergent __syncthreads",
    "return before a barrier",
    "return before a barrier, reverse",
    "shuffle with a lane that returned",
    "warp collective with a lane elsewhere",
    "different masks",
    "an mbarrier that never completes",
    "an mbarrier without init",
    "a spin loop without end",
    "a named barrier that is never full",
    "store far behind a buffer",
    "store right behind a buffer",
    "store right behind a buffer, exact guards",
    "load before a buffer",
    "a null pointer",
    "use after free",
    "store behind dynamic shared memory",
    "store right behind dynamic shared memory",
    "asynchronous copy out of bounds",
    "bulk copy in flight at the end",
    "a missing mbarrier wait",
    "stack overflow",
    "C++ exception",
    "static shared memory",
    "a missing __syncthreads",
    "a cluster's barrier that a block does not reach",
    "a second arrival without a wait",
    "a cluster's wait without an arrival",
    "shared memory of a block that has ended",
    "an arrival at a block that has ended",
    "a rank outside the cluster",
    "a multicast to blocks that are not there",
    "store behind the shared memory of a resident block",
    "static shared memory of resident blocks",
    "a grid's barrier that a block does not reach",
    "a kernel that overlaps without a wait",
    "a missing cluster_sync",
    "a missing grid_sync",
]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver, compiled with the system's C++ compiler."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    assert compiler, "a C++20 compiler is needed, as for the package itself"
    folder = tmp_path_factory.mktemp("sim_runtime")

    def compile_one(source: Path) -> str:
        made = folder / (source.stem + ".o")
        include = ROOT / "csrc" / "sim" / "include"
        command = [compiler, *FLAGS, "-I", str(include), "-c", str(source), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return str(made)

    # The trace's files (trace*.cpp) belong to another module.
    sources = [source for source in RUNTIME if not source.name.startswith("trace")]
    with ThreadPoolExecutor(max_workers=2) as pool:
        objects = list(pool.map(compile_one, [*sources, *DRIVERS]))
    program = folder / "sim_test"
    subprocess.run([compiler, *objects, "-o", str(program), "-lpthread", "-ldl"], check=True)
    return program


def run(driver: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The driver's result in an environment without the simulator's variables but these."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TILEGRAD_")}
    return subprocess.run(
        [str(driver), *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**clean, **environment},
    )


@pytest.fixture(scope="module")
def output(driver: Path) -> str:
    """What the driver prints when all of its checks hold."""
    done = run(driver)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all passed\n")
    return done.stdout


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_correct_kernels_under_schedule(output: str, schedule: str) -> None:
    assert f"schedule {schedule}: sum, lanes, ring, copies, poison\n" in output
    assert f"schedule {schedule}: clusters, multicast, grids\n" in output


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_caught(output: str, fault: str) -> None:
    assert f"caught {fault}: " in output


def test_no_fault_is_forgotten_here(output: str) -> None:
    names = [line[7:].split(": ")[0] for line in output.splitlines() if line.startswith("caught ")]
    assert names == FAULTS


@pytest.mark.parametrize(
    "part",
    ["intrinsics", "memory:", "configuration:", "capture:", "four host threads", "residency:"],
)
def test_host_side(output: str, part: str) -> None:
    assert any(line.startswith(part) for line in output.splitlines())


@pytest.mark.parametrize(("cc", "shared"), [("75", 65536), ("80", 166912), ("90", 232448)])
def test_compute_capability_of_the_environment(driver: Path, cc: str, shared: int) -> None:
    done = run(driver, "device", TILEGRAD_SIM_CC=cc, TILEGRAD_SIM_MEMORY="5000")
    assert done.stdout == f"cc {cc} shared {shared} memory 5000 schedule forward/eager\n"


def test_default_device(driver: Path) -> None:
    done = run(driver, "device", TILEGRAD_SIM_SCHEDULE="random:7")
    assert done.stdout == "cc 90 shared 232448 memory 8589934592 schedule random:7\n"


@pytest.mark.parametrize(
    ("variable", "value", "rule"),
    [
        ("TILEGRAD_SIM_CC", "86", "TILEGRAD_SIM_CC must be 75, 80 or 90; got '86'"),
        ("TILEGRAD_SIM_SCHEDULE", "sideways", "got 'sideways'"),
        ("TILEGRAD_SIM_MEMORY", "lots", "TILEGRAD_SIM_MEMORY must be a number of bytes"),
        ("TILEGRAD_SIM_GUARDS", "loose", "TILEGRAD_SIM_GUARDS must be aligned or exact"),
    ],
)
def test_bad_environment_is_refused(driver: Path, variable: str, value: str, rule: str) -> None:
    done = run(driver, "device", **{variable: value})
    assert done.stdout.startswith("refused: sim: ")
    assert rule in done.stdout
