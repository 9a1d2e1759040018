# SPDX-License-Identifier: MIT
"""`tilegrad bench cuda`, as far as a machine without a GPU can tell: cases, clock, command."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from tilegrad.bench import cuda, device, harness
from tilegrad.bench.device import Rotation, Workbench
from tilegrad.bench.device_workloads import FAMILIES, all_cases
from tilegrad.bench.device_workloads import cross_entropy as cross_entropy_cases
from tilegrad.bench.device_workloads import matmul as matmul_cases
from tilegrad.bench.harness import OURS, Case, Contest, Protocol

pytest.importorskip("torch", reason="benchmarks are beside PyTorch")

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


def raise_value(text: str) -> None:
    raise ValueError(text)


@pytest.mark.skipif(tg.cuda.is_available(), reason="there is a GPU")
def test_bench_without_a_device_says_why() -> None:
    from tilegrad.bench import main

    with pytest.raises(RuntimeError, match="device: 'cuda' cannot be used: "):
        main(["cuda", "--quick"])


def test_bench_lists_its_cases(capsys: pytest.CaptureFixture[str]) -> None:
    assert cuda.main(["--list", "--filter", "matmul_ladder/hopper "]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "matmul_ladder/hopper 1024 bf16",
        "matmul_ladder/hopper 4096 bf16  (quick)",
    ]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--filter", "nothing"], "--filter: must be part of a case's name; got 'nothing'"),
        (["--minutes", "-1"], "--minutes: must not be negative; got -1"),
        (["--json", "no/such/folder/x.json"], "--json: the folder must exist"),
        (
            ["--predict", "--json", "x.json"],
            "--json: goes with a measurement; --predict makes none",
        ),
        (["--from", "x.json", "--json", "y.json"], "--json: goes with a measurement; --from makes"),
        (["--predict", "--minutes", "1"], "--minutes: goes with a measurement; --predict makes"),
        (["--predict", "--from", "x.json"], "--from: not allowed with argument --predict"),
        (["--list", "--plot", "x.png"], "--plot: goes with a measurement, --predict or --from"),
        (["--from", "x.json", "--quick"], "--from: prints what is stored; leave out --skip and"),
    ],
)
def test_bad_options_of_bench_are_refused(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cuda.main(arguments)
    assert text in capsys.readouterr().err


def test_cases_are_sane() -> None:
    cases = all_cases(Workbench())
    assert {case.family for case in cases} >= {
        module.__name__.rpartition(".")[2] for module in FAMILIES
    }
    assert len(set(matmul_cases.SHAPES)) >= 40
    assert {shape[3] for shape in matmul_cases.SHAPES} == {"NN", "NT", "TN"}
    for case in cases:
        assert case.bytes > 0, case.id
        assert case.flops > 0, case.id
    known = {case.id: (case.bytes, case.flops) for case in cases}
    assert known["matmul/8192x8192x8192 TN bf16"] == (6 * 8192**2, 2 * 8192**3)
    assert known["cross_entropy/8192x32768 bf16"][0] == 4 * 8192 * 32768 + 8 * 8192
    assert known["optim/Adam MLP 669706 f32"][0] == 28 * 669_706
    assert known["activation/relu 100000000 bf16 backward"][0] == 6e8


@pytest.fixture
def tiny() -> Workbench:
    return Workbench("sim", tiny=True)


TINY = all_cases(Workbench("sim", tiny=True))


@pytest.mark.parametrize("name", sorted({case.id for case in TINY}))
def test_sides_of_a_case_agree_on_the_simulator(name: str, tiny: Workbench) -> None:
    contest = next(case for case in all_cases(tiny) if case.id == name).build()
    contest.check()
    assert tiny.notes == []
    assert contest.peers


def test_cases_without_torch(tiny: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    from tilegrad.bench import environment

    environment.torch.cache_clear()
    monkeypatch.setitem(sys.modules, "torch", None)
    try:
        for family in ("matmul", "linear", "activation", "softmax", "cross_entropy", "optim",
                       "train_step", "host"):  # fmt: skip
            case = next(c for c in all_cases(tiny) if c.family == family and "f32" in c.name)
            contest = case.build()
            contest.check()
            assert contest.peers == {}, case.id
    finally:
        environment.torch.cache_clear()


def test_every_rung_is_timed(tiny: Workbench) -> None:
    a = tg.ones((2, 2), device="sim")
    targets = tg.asarray(np.zeros(2, np.int64), device="sim")
    with pytest.raises(ValueError, match="variant") as error:
        tg.matmul(a, a, variant="nonsense")
    for rung in matmul_cases.RUNGS:
        assert rung in str(error.value)
    with pytest.raises(ValueError, match="variant") as error:
        tg.cross_entropy_value_and_grad(a, targets, variant="nonsense")
    for rung in cross_entropy_cases.RUNGS:
        assert f"'{rung}'" in str(error.value)


def test_bench_from_end_to_end(
    tiny: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run it on the simulator: figures, a failing case, a stored file that the text is made of."""
    path = tmp_path / "bench.json"
    states: list[int] = []
    names = ("matmul/65x65x65 NN f32", "softmax/softmax 67x10 f32 forward", "host/relu 8x8 f32")
    cases = [case for case in all_cases(tiny) if case.id in names]
    assert len(cases) == 3

    def wrong() -> Contest:
        states.append(len(json.loads(path.read_text())["cases"]))
        return Contest(lambda: None, {}, lambda: harness.agree({"torch": 1.0}, 2.0, 1e-3))

    def absent() -> Contest:
        raise device.LeftOut("not on this device")

    cases[1:1] = [Case("matmul", "wrong", 1.0, 1.0, wrong), Case("matmul", "no", 1.0, 1.0, absent)]
    monkeypatch.setattr(cuda, "all_cases", lambda bench: cases)
    assert cuda.main(["--json", str(path)], device="sim") == 1
    assert states == [1]  # the case before was stored already
    found = json.loads(path.read_text())
    assert [one["family"] for one in found["cases"]] == ["matmul", "softmax", "host"]
    assert found["failed"][0]["case"] == "matmul/wrong"
    assert found["failed"][0]["why"].startswith("AssertionError: torch: result 0 is off by")
    assert found["left_out"] == [{"case": "matmul/no", "why": "not on this device"}]
    assert found["conditions"]["data"] == "random normal"
    assert found["limits"]["before"]["copy_gbytes"] > 0
    first, second, third = found["cases"]
    assert first["ratios"]["torch"]["low"] > 0
    assert (first["how"], first["sets"], third["how"]) == ("calls", 2, "host")
    assert second["limit"] == "copy"
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    head = {"date": "2026-01-02", "commit": "abc", "machine": {
        "gpu": {}, "nvcc": "", "cpu": "", "cores": 2, "python": ""}}  # fmt: skip
    results = importlib.import_module("gpu_results").Results(tmp_path, "x", head)
    results.add("bench", {"status": "failed", "results": found})
    text = results.text.read_text()
    assert "| matmul/65x65x65 NN f32 | " in text
    assert "matmul/no (not on this device)" in text


def test_no_case_is_begun_when_time_is_up(tiny: Workbench, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    assert cuda.main(["--minutes", "1e-9", "--json", str(path), "--filter", "host/"], "sim") == 0
    found = json.loads(path.read_text())
    assert found["cases"] == []
    assert {one["why"] for one in found["left_out"]} == {"the time was up"}


class FakeEvents:
    """Events of a GPU whose time the test sets."""

    now = 0.0

    def event(self, enable_timing: bool) -> Any:
        assert enable_timing
        made = SimpleNamespace(at=0.0, waited=False)
        made.record = lambda: setattr(made, "at", self.now)
        made.synchronize = lambda: setattr(made, "waited", True)
        made.elapsed_time = lambda other: (other.at - made.at) * 1e3
        return made


def test_event_clock_adds_what_passes_between_events() -> None:
    gpu = FakeEvents()
    clock = device.EventClock(gpu.event)
    readings = []
    for gpu.now in (7.0, 7.5, 9.5):
        readings.append(clock())
    assert readings == [0.0, 0.5, 2.5]
    assert clock._last.waited


class FakeGraphs:
    """The part of torch.cuda that captures: a graph remembers what ran while it was captured."""

    def __init__(self, log: list[str], breaks: bool) -> None:
        @contextlib.contextmanager
        def capture(graph: Any, stream: str, capture_error_mode: str) -> Iterator[None]:
            assert (stream, capture_error_mode) == ("current", "thread_local")
            if breaks:
                raise RuntimeError("operation not permitted when stream is capturing")
            start = len(log)
            yield
            graph.calls = log[start:]

        class Graph:
            calls: list[str]

            def replay(self) -> None:
                log.append(f"replay {len(self.calls)}")

        self.cuda = SimpleNamespace(
            CUDAGraph=Graph, graph=capture, current_stream=lambda: "current", Event=None
        )


@pytest.mark.parametrize("breaks", [False, True])
def test_short_calls_are_replayed_from_graphs_on_both_sides_or_none(
    breaks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    fake = FakeGraphs(log, breaks)
    monkeypatch.setattr(device, "torch", lambda: fake)
    bench = Workbench("cuda")
    monkeypatch.setattr(Workbench, "synchronize", lambda self: None)
    monkeypatch.setattr(Workbench, "clock", lambda self: time.perf_counter)
    sides = {
        name: Rotation([lambda name=name, i=i: log.append(f"{name}{i}") for i in range(3)])
        for name in (OURS, "torch")
    }
    contest = Contest(sides[OURS], {"torch": sides["torch"]}, lambda: None)
    case = Case("matmul", "x", 100.0, 100.0, lambda: contest)
    protocol = Protocol(sample=1e-4, budget=0.0, fewest=3, most=3)
    record = device.measure(bench, case, None, protocol)
    assert record["how"] == ("calls" if breaks else "graph")
    assert record["sets"] == 3
    replayed = [int(line.split()[1]) for line in log if line.startswith("replay")]
    assert bool(replayed) is not breaks
    assert all(calls % 3 == 0 for calls in replayed)  # every set of operands as often
    if breaks:
        assert "operation not permitted" in record["notes"][0]


def test_a_peer_that_cannot_run_is_noted() -> None:
    bench, peers = Workbench("cpu"), {}  # type: Workbench, dict[str, Any]
    bench.peer(peers, "torch compile", lambda: raise_value("no compiler\nmore"))
    bench.peer(peers, "torch", lambda: lambda: 1)
    assert list(peers) == ["torch"]
    assert bench.notes == ["torch compile: ValueError: no compiler"]


def test_operands_leave_the_cache_or_the_record_says_hot() -> None:
    bench = Workbench(cache=1000)
    assert [bench.sets(size) for size in (10_000, 3000, 2999, 500, 1)] == [1, 1, 2, 6, 16]
