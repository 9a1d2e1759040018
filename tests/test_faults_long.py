# SPDX-License-Identifier: MIT
"""Short slices of the long runs of soak.py, with the same code."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import allocation_runs
import bit_runs
import growth_runs
import kill_runs
import thread_runs
import tilegrad as tg
from children import run
from tilegrad import _train, nn

COMPILER = os.environ.get("CXX", "g++").split()[0]


def test_killed_trainings_go_on_from_a_whole_checkpoint(tmp_path: Path) -> None:
    result = kill_runs.kill_fit(5, tmp_path, seed=1)
    assert result["epochs"] > 0


def test_the_killed_command_goes_on(tmp_path: Path) -> None:
    kill_runs.kill_command(2, tmp_path, seed=1, epochs=100)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("steps on cpu", 30_000), ("steps in the long form on cpu", 2000), ("steps on sim", 200),
        ("batches of 1 to 1000 rows on cpu", 1200), ("models made and dropped on cpu", 500),
        ("models made and dropped on sim", 100), ("arrays made and dropped on sim", 2000),
        ("refused calls on cpu", 3000),
    ],
)  # fmt: skip
def test_memory_does_not_grow(kind: str, count: int) -> None:
    growth_runs.growth(kind, count, count // 2)


def test_a_step_keeps_the_plans_used_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_train, "_MOST_PLANS", 3)
    model = nn.Linear(2, 2)
    step = tg.TrainStep(model, nn.CrossEntropyLoss(), tg.optim.SGD(model.parameters()))
    recorded = []
    record = step._record
    monkeypatch.setattr(step, "_record", lambda x, t: (recorded.append(len(x)), record(x, t))[1])
    for rows in (1, 2, 3, 1, 4, 1, 3, 2):
        step(growth_runs.X[:rows, :2].copy(), growth_runs.Y[:rows])
    assert recorded == [1, 2, 3, 4, 2]
    for rows in (1, 2, 3, 1, 4, 1, 3, 2):
        step.forward_backward(growth_runs.X[:rows, :2].copy(), growth_runs.Y[:rows])
    assert recorded == [1, 2, 3, 4, 2] * 2
    assert len(step._wholes) == len(step._plans) == 3


def test_threads_get_what_one_gets() -> None:
    thread_runs.in_a_process("cpu", 64, 4)


def test_simulated_kernels_in_many_threads() -> None:
    """With so many fibers the system once had no memory ranges left: the process crashed."""
    thread_runs.in_a_process("sim", 64, 1)


@pytest.mark.parametrize(("where", "runs"), [("cpu", 6), ("sim", 3)])
def test_every_process_has_the_same_bits(where: str, runs: int) -> None:
    bit_runs.repeat(where, runs)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which(COMPILER) is None:
        pytest.skip(f"needs the compiler {COMPILER}")
    if "clang" in os.path.basename(COMPILER) or "TILEGRAD_SANITIZED" in os.environ:
        pytest.skip("replaces what glibc and libstdc++ allocate with; a sanitizer does too")
    return allocation_runs.build(tmp_path_factory.mktemp("library"))


@pytest.mark.parametrize("kind", allocation_runs.KINDS)
@pytest.mark.parametrize("all_after", [False, True], ids=["one", "all after"])
def test_no_allocation_that_fails_ends_the_process(
    library: Path, kind: str, all_after: bool
) -> None:
    allocation_runs.in_a_process(library, kind, 400, all_after)


def test_a_limit_on_memory_is_a_memory_error() -> None:
    code = """
        import resource, numpy as np, tilegrad as tg
        from tilegrad import nn
        model = nn.Sequential(nn.Linear(100, 200, activation="relu"), nn.Linear(200, 10))
        optimizer = tg.optim.Adam(model.parameters())
        step = tg.TrainStep(model, nn.CrossEntropyLoss(), optimizer)
        x, y = np.ones((50, 100), np.float32), np.arange(50) % 10
        step(x, y)
        large, many = np.ones((60000, 100), np.float32), np.arange(60000) % 10
        used = 4096 * int(open("/proc/self/statm").read().split()[0])
        weights = [p.data.copy() for p in model.parameters()]
        np.random.default_rng(0), tg.fit  # modules that are loaded late
        calls = (
            lambda: tg.matmul(large, large[:4000], transpose_b=True),
            lambda: step(large, many),
            lambda: model.predict(large),
            lambda: tg.fit(model, nn.CrossEntropyLoss(), optimizer, (large, many), epochs=1,
                           batch_size=60000, progress=False),
        )
        for spare in range(0, 40_000_000, 8_000_000):
            resource.setrlimit(resource.RLIMIT_AS, (used + spare, resource.RLIM_INFINITY))
            for call in calls:
                try:
                    call()
                except MemoryError:
                    continue
                raise SystemExit(f"there was room: {spare}")
        for p, before in zip(model.parameters(), weights):
            assert (p.data == before).all()
        step(x, y)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        step(large, many)
        print("done")
    """
    assert run(code, env={"TILEGRAD_NUM_THREADS": "1"}) == "done\n"


def test_an_object_that_python_has_no_memory_for_is_a_memory_error() -> None:
    pytest.importorskip("_testcapi", reason="CPython's own tests are not installed")
    code = """
        import _testcapi
        from tilegrad import _cpu
        refused = 0
        for make in (_cpu.Plan, _cpu.StepState):
            for number in range(6):
                _testcapi.set_nomemory(number, number + 1)
                try:
                    make()
                except MemoryError:
                    refused += 1
                finally:
                    _testcapi.remove_mem_hooks()
                make()
        print(refused > 0)
    """
    assert run(code) == "True\n"
