# SPDX-License-Identifier: MIT
"""The analysis of memory accesses: known kernels (tests/cpp/trace_kernels.cu) and the Python side.

The kernels are compiled as _sim_trace's are, with the trace and the runtime but without bindings.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tilegrad as tg
from tilegrad import _trace_lines, _trace_page, backends, sim

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "tests" / "cpp" / "trace_kernels.cu"
RESIDENT = ROOT / "tests" / "cpp" / "trace_resident.cuh"
SCHEDULES = ("forward/eager", "reverse/lazy", "random:7")
FLAGS = ["-std=c++20", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-psabi",
         "-I", str(ROOT / "csrc/sim/include")]  # fmt: skip


def trace_flags() -> list[str]:
    """Return the flags that cmake/sim.cmake gives to traced kernels under gcc."""
    text = (ROOT / "cmake" / "sim.cmake").read_text()
    common = re.search(r"set\(trace_options (.*?)\)", text, re.S)
    gcc = re.search(r"list\(APPEND trace_options (-fno-tree.*?)\)", text, re.S)
    assert common
    assert gcc
    return [*common.group(1).split(), *gcc.group(1).split()]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = os.environ.get("CXX") or shutil.which("g++")
    assert compiler, "a C++20 compiler is needed, as for the package itself"
    folder = tmp_path_factory.mktemp("trace_kernels")
    of_kernels = ["-x", "c++", "-mavx2", "-mfma", "-ffp-contract=off", "-Wno-unknown-pragmas",
                  "-DTILEGRAD_BACKEND=sim", "-DTILEGRAD_SIM", "-g1", *trace_flags()]  # fmt: skip

    def compile_one(source: Path) -> str:
        made = folder / f"{source.stem}.o"
        flags = [*FLAGS, *(of_kernels if source == KERNELS else ())]
        command = [compiler, *flags, "-c", str(source), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return str(made)

    runtime = [each for each in (ROOT / "csrc/sim").glob("*.cpp") if each.stem != "trace_bind"]
    with ThreadPoolExecutor(max_workers=2) as pool:
        # In this order: of a template that both use, the linker takes the first.
        objects = list(pool.map(compile_one, [*runtime, KERNELS]))
    target = folder / "trace_kernels"
    subprocess.run([compiler, *objects, "-o", str(target), "-lpthread", "-ldl"], check=True)
    return target


def run(program: Path, case: str, schedule: str) -> sim.Trace:
    done = subprocess.run([program, case, schedule], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    trace = sim.Trace(schedule)
    trace._read(done.stdout)
    return trace


def line(mark: str) -> int:
    """Return the number of the line of a kernel that bears a mark."""
    numbers = [
        number
        for file in (KERNELS, RESIDENT)
        for number, text in enumerate(file.read_text().splitlines(), 1)
        if f"// [{mark}]" in text
    ]
    assert len(numbers) == 1, mark
    return numbers[0]


def cost(trace: sim.Trace, mark: str, space: str, op: str) -> tuple[int, int, int, int]:
    found = [
        site
        for site in trace.sites
        if site.file.endswith((KERNELS.name, RESIDENT.name))
        and (site.line, site.space, site.op) == (line(mark), space, op)
    ]
    assert len(found) == 1, (mark, trace.sites)
    return found[0].requests, found[0].sectors, found[0].ideal, found[0].worst


# ---- coalescing and bank conflicts --------------------------------------------------------------

TRUTHS = [
    ("naive", "naive load", "global", "load", (512, 2048, 2048, 4)),
    ("naive", "naive store", "global", "store", (512, 16384, 2048, 32)),
    ("tile32", "tile fill", "global", "load", (512, 2048, 2048, 4)),
    ("tile32", "tile fill", "shared", "store", (512, 512, 512, 1)),
    ("tile32", "tile load", "shared", "load", (512, 16384, 512, 32)),
    ("tile32", "tile store", "global", "store", (512, 2048, 2048, 4)),
    ("tile33", "tile load", "shared", "load", (512, 512, 512, 1)),
    ("tile33", "tile store", "global", "store", (512, 2048, 2048, 4)),
    ("float4", "float4 copy", "global", "load", (128, 2048, 2048, 16)),
    ("float4", "float4 copy", "global", "store", (128, 2048, 2048, 16)),
    # 16 lanes with every other word of 8 bytes: 2 words a bank; all lanes of 8 one word: free.
    ("double", "double load", "shared", "load", (1, 4, 2, 4)),
    ("double", "broadcast", "shared", "load", (1, 2, 2, 2)),
    # Lanes i..31 at an offset of i + 1 elements: ceil((32 - i) / 8) full sectors, one more unless
    # the first element begins a sector, i = 7, 15, 23, 31.
    ("loop", "loop load", "global", "load", (32, 108, 80, 5)),
    ("cp_async", "cp.async", "global", "load", (4, 64, 64, 16)),
    ("cp_async", "cp.async", "shared", "store", (4, 16, 16, 4)),
    ("cp_async", "cp.async use", "shared", "load", (4, 16, 4, 4)),
    # A peer's shared memory is shared memory: four blocks, no conflict along a column of 33.
    ("cluster+", "cluster write", "shared", "store", (4 * 32, 4 * 32, 4 * 32, 1)),
    ("cluster+", "cluster read", "shared", "load", (4, 4, 4, 1)),
    ("peer+", "peer write", "shared", "store", (4, 4, 4, 1)),
    # Read once for both blocks: 8 rows of 4 sectors.
    ("multicast+", "multicast issue", "global", "load", (8, 32, 32, 4)),
    ("grid+", "grid read", "global", "load", (4, 16, 16, 4)),
]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("case", "mark", "space", "op", "expected"), TRUTHS)
def test_requests_cost_what_is_known(
    program: Path,
    case: str,
    mark: str,
    space: str,
    op: str,
    expected: tuple[int, int, int, int],
    schedule: str,
) -> None:
    assert cost(run(program, case, schedule), mark, space, op) == expected


def test_loop_truth_by_hand() -> None:
    sectors = ideal = 0
    for i in range(32):
        first, last = 1 + 32 * i + i, 1 + 32 * i + 31
        sectors += last * 4 // 32 - first * 4 // 32 + 1
        ideal += -(-(last - first + 1) * 4 // 32)
    assert (sectors, ideal) == (108, 80)


# ---- races --------------------------------------------------------------------------------------

RACES = {
    "raw": {"raw write", "raw read"},
    "war": {"war write", "war read"},
    "waw": {"waw write"},
    "shuffle": {"shuffle write", "shuffle read"},
    "named": {"named write", "named read"},
    "blocks": {"blocks write"},
    "narrow": {"narrow write"},
    "atomics": {"atomics write", "atomics read"},
    "copy": {"copy issue", "copy read"},
    "copy barrier": {"copy issue", "copy read"},
    "ring": {"ring write", "ring read"},
    "tma": {"tma issue", "tma read"},
    "cluster": {"cluster write", "cluster read"},
    "peer": {"peer write", "peer read"},
    "multicast": {"multicast issue", "multicast read"},
    "grid": {"grid write", "grid read"},
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("case", RACES)
def test_a_race_is_found_with_both_accesses(program: Path, case: str, schedule: str) -> None:
    trace = run(program, case + "-", schedule)
    assert trace.races
    lines = {line(mark) for mark in RACES[case]}
    for race in trace.races:
        for access in (race.first, race.second):
            assert access.file.endswith((KERNELS.name, RESIDENT.name))
        assert {race.first.line, race.second.line} == lines
        assert "store" in (race.first.op, race.second.op)
        one, other = ((a.thread, a.block) for a in (race.first, race.second))
        # A copy engine races for the thread that issued it, maybe with that thread itself.
        assert one != other or race.first.instruction or race.second.instruction
        assert race.count >= 1
        assert 0 <= race.offset < race.bytes
        global_ones = ("blocks", "atomics", "grid")
        assert race.space == ("global" if case in global_ones else "shared")
    assert f"races: {len(trace.races)}" in str(trace)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("case", RACES)
def test_a_correct_kernel_has_no_race(program: Path, case: str, schedule: str) -> None:
    trace = run(program, case + "+", schedule)
    assert trace.sites
    assert not trace.races
    assert not trace.out_of_bounds
    assert "races: none" in str(trace)


def test_a_race_names_threads_blocks_and_place(program: Path) -> None:
    race = run(program, "raw-", "forward/eager").races[0]
    # In forward order thread 63 reads element 64 before thread 64 writes it.
    assert (race.first.thread, race.second.thread) == ((63, 0, 0), (64, 0, 0))
    assert (race.first.op, race.second.op) == ("load", "store")
    assert (race.variable, race.offset, race.bytes) == ("tile", 64 * 4, 512)
    text = str(race)
    assert "race in shared memory at offset 256 of tile of 512 bytes (64 times)" in text
    assert f"trace_kernels.cu:{line('raw write')}" in text
    race = run(program, "blocks-", "reverse").races[0]
    assert (race.first.block, race.second.block) == ((2, 0, 0), (1, 0, 0))
    assert (race.offset, race.bytes, race.count) == (0, 128 * 128 * 4, 2)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_race_of_resident_blocks_names_both(program: Path, schedule: str) -> None:
    def blocks(case: str) -> set[frozenset[int]]:
        found = run(program, case, schedule).races
        assert found
        return {frozenset((race.first.block[0], race.second.block[0])) for race in found}

    pairs = {frozenset((0, 1)), frozenset((2, 3))}
    assert blocks("cluster-") <= pairs
    assert blocks("peer-") <= pairs
    assert all(len(pair) == 2 for pair in blocks("grid-"))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_an_access_before_the_wait_of_a_kernel_that_overlaps(program: Path, schedule: str) -> None:
    for case, text in (
        ("overlap+", ""),
        ("overlap-", "a global access before grid_dependency_wait"),
    ):
        done = subprocess.run([program, case, schedule], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0
        assert text in done.stderr
        assert bool(done.stderr) is bool(text)


# ---- bounds -------------------------------------------------------------------------------------

BOUNDS = [
    # case, op, size, offset, bytes of the buffer, thread, block
    ("past", "load", 4, 40, 40, (2, 0, 0), (1, 0, 0)),
    ("crossing", "load", 16, 32, 40, (2, 0, 0), (0, 0, 0)),
    ("before", "store", 4, -4, 40, (7, 0, 0), (0, 0, 0)),
    ("shared", "load", 4, 128, 128, (31, 0, 0), (0, 0, 0)),
    ("freed", "load", 4, 4, 40, (3, 0, 0), (0, 0, 0)),
]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("case", "op", "size", "offset", "total", "thread", "block"), BOUNDS)
def test_an_access_out_of_bounds_is_exact(
    program: Path,
    case: str,
    op: str,
    size: int,
    offset: int,
    total: int,
    thread: tuple[int, int, int],
    block: tuple[int, int, int],
    schedule: str,
) -> None:
    trace = run(program, case, schedule)
    (found,) = trace.out_of_bounds
    access = found.access
    assert (access.op, found.size, found.offset, found.bytes) == (op, size, offset, total)
    assert (access.thread, access.block) == (thread, block)
    assert access.line == line(f"{case} {'write' if op == 'store' else 'read'}")
    assert found.freed is (case == "freed")
    assert found.space == ("shared" if case == "shared" else "global")
    assert str(found) in str(trace)


# ---- tilegrad.sim.trace() -----------------------------------------------------------------------


def on_sim(*shape: int, dtype: type = np.float32) -> tg.Array:
    values = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    return tg.asarray(values, device="sim")


def test_trace_computes_what_sim_computes() -> None:
    a, b = on_sim(33, 65), on_sim(65, 40)
    expected = tg.matmul(a, b).numpy()
    with tg.sim.trace(schedule="random:5") as t:
        c = tg.matmul(a, b)
    np.testing.assert_array_equal(c.numpy(), expected)
    np.testing.assert_array_equal(tg.relu(c).numpy(), np.maximum(expected, 0))
    assert t.schedule == "random:5"
    assert [launch.kernel for launch in t.launches if launch.kernel.startswith("matmul")]
    assert all(site.file.startswith("csrc/cuda/") and site.line > 0 for site in t.sites)
    assert all(site.ideal <= site.sectors for site in t.sites)
    assert not t.races
    assert not t.out_of_bounds


def test_trace_leaves_things_as_they_were() -> None:
    before, module = tg.sim.schedule(), backends.at(backends.SIM)
    x = on_sim(4, 5)
    with (
        pytest.raises(ValueError, match=r"matmul: .*\(4, 5\)"),
        tg.sim.trace("reverse") as t,
    ):
        tg.matmul(x, x)
    assert backends.at(backends.SIM) is module
    assert tg.sim.schedule() == before
    assert t.sites == []
    with pytest.raises(ValueError, match="schedule"), tg.sim.trace("sideways"):
        pass
    assert backends.at(backends.SIM) is module
    with tg.sim.trace() as t:
        tg.relu(x)
    assert t.schedule == before
    assert t.sites


def test_traces_cannot_be_nested() -> None:
    with tg.sim.trace(), pytest.raises(RuntimeError, match="nested"), tg.sim.trace():
        pass
    with tg.sim.trace():
        pass


def test_a_result_of_a_trace_lives_on() -> None:
    with tg.sim.trace():
        y = tg.relu(on_sim(1000))
    copies = [tg.relu(on_sim(1000)) for _ in range(3)]
    np.testing.assert_array_equal(y.numpy(), copies[0].numpy())
    del y, copies
    tg.release_memory()


def test_no_sanitizer_is_linked() -> None:
    from elftools.elf.elffile import ELFFile

    with tg.sim.trace():
        pass
    module = backends.importlib.import_module("tilegrad._sim_trace")
    with open(module.__file__, "rb") as file:
        tags = ELFFile(file).get_section_by_name(".dynamic").iter_tags()
        needed = [tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"]
    assert any(name.startswith("libc.") for name in needed)
    assert not [name for name in needed if "san" in name]


def test_sources_of_sites_are_found() -> None:
    with tg.sim.trace() as t:
        tg.softmax(on_sim(8, 64), -1)
    assert t.sites
    for site in t.sites:
        text = _trace_lines.source(site.file)
        assert 0 < site.line <= len(text)


def test_lines_of_the_runtime_belong_to_the_kernel(program: Path) -> None:
    (load, store) = run(program, "float4", "forward").sites
    assert (load.bytes, store.bytes) == (16, 16)
    assert load.line == store.line == line("float4 copy")


def test_without_pyelftools_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = backends.importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "elftools" else find(name)
    )
    with pytest.raises(ImportError, match=r"tilegrad\[trace\]"), tg.sim.trace():
        pass
    monkeypatch.undo()
    with tg.sim.trace():
        pass


def test_a_page_shows_races(program: Path) -> None:
    page = _trace_page.page("raw", run(program, "raw-", "forward"))
    assert "race in shared memory at offset 256 of tile" in page
    assert page.count("hit race") == 2 + 1  # both lines; one of them has two accesses
