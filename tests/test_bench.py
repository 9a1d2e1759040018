# SPDX-License-Identifier: MIT
"""The benchmarks: arithmetic of the harness, sanity of the cases, the command from end to end."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from tilegrad.bench import cpu, environment, harness, machine, ratio_plot, report, session
from tilegrad.bench.harness import Case, Contest, Limit, Protocol
from tilegrad.bench.workloads import FAMILIES, all_cases

pytest.importorskip("torch", reason="benchmarks are beside PyTorch")

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
CASES = all_cases()


class Clock:
    """A clock that only the calls under test move on."""

    def __init__(self) -> None:
        self.now = 100.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def call(self, name: str, *seconds: float) -> Callable[[], None]:
        """Return a call that takes these times in turn, the last one ever after."""
        left = list(seconds)

        def run() -> None:
            self.log.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def case(family: str = "matmul", name: str = "n", **changes: Any) -> Case:
    values: dict[str, Any] = {"bytes": 400.0, "flops": 1000.0, "build": None}
    return Case(family, name, **{**values, **changes})


def figures(name: str, ratio: float, family: str = "matmul", **changes: Any) -> dict[str, Any]:
    """Return the record of a case in which both sides never vary."""
    seconds = {"tilegrad": [1e-3] * 3, "torch": [ratio * 1e-3] * 3, "numpy": [1.0] * 3}
    return harness.record(case(family, name, **changes), seconds, None)


def result(records: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    limits = {"fma_gflops": 100.0, "copy_gbytes": 10.0}
    return {
        "format": session.FORMAT,
        "date": "2026-01-02 03:04 UTC",
        "commit": None,
        "machine": machine.describe(),
        "versions": {"tilegrad": "0.1.0", "numpy": "2.4.0", "torch": "2.13.0"},
        "threads": 1,
        "cores": [0],
        "cache": "hot",
        "quick": False,
        "load": [0.1, 1.1],
        "limits": {"before": limits, "after": limits},
        "cases": records,
        **changes,
    }


def test_a_sample_is_at_least_as_long_as_asked() -> None:
    clock = Clock()
    # the first call is slow: it warms up and must not count
    call = clock.call("x", 0.2, 0.001)
    calls, each = harness.calls_per_sample(call, 0.1, clock)
    assert (calls, each) == (pytest.approx(100, abs=1), pytest.approx(0.001))
    clock.log.clear()
    assert harness.calls_per_sample(clock.call("y", 30.0), 0.1, clock) == (1, pytest.approx(30.0))
    assert clock.log == ["y"]  # seconds long: once is enough


def test_time_calls_divides_by_the_number_of_calls() -> None:
    clock = Clock()
    assert harness.time_calls(clock.call("x", 1.0, 2.0, 6.0), 3, clock) == pytest.approx(3.0)
    assert clock.log == ["x"] * 3


def test_rounds_interleave_all_sides_and_alternate_their_order() -> None:
    clock = Clock()
    sides = {name: clock.call(name, 1.0) for name in "abc"}
    prepared: list[int] = []
    calls = {"a": 1, "b": 2, "c": 1}
    seconds = harness.run_rounds(
        sides, calls, 3, clock=clock, before=lambda _, count: prepared.append(count)
    )
    assert "".join(clock.log) == "abbccbbaabbc"
    assert prepared == [1, 2, 1, 1, 2, 1, 1, 2, 1]
    assert seconds == {name: [1.0] * 3 for name in "abc"}


def test_ratio_is_the_median_of_paired_ratios() -> None:
    # The machine gets 10 times slower from round to round: ratios within a round do not notice.
    seconds = {"tilegrad": [1.0, 10.0, 100.0], "numpy": [4.0, 40.0, 400.0], "torch": [2, 20, 200]}
    record = harness.record(case(), seconds, None)
    assert record["ratios"]["numpy"] == {"median": 4.0, "low": 4.0, "high": 4.0}
    assert record["best_peer"] == "torch"
    assert report.ratio(record) == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert record["seconds"]["tilegrad"] == {"median": 10.0, "low": 5.5, "high": 55.0}
    assert "share" not in record


@pytest.mark.parametrize(("kind", "work"), [("FMA", 1000.0), ("copy", 400.0)])
def test_share_divides_by_the_limit_of_the_same_round(kind: str, work: float) -> None:
    # The limit's call does 4 times the case's work: in the rounds the case takes 2, 1 and 2 times
    # as long as the limit would.
    limit = Limit(kind, lambda: None, 4 * work)
    seconds = {"tilegrad": [0.5, 0.5, 2.0], "limit": [1.0, 2.0, 4.0]}
    record = harness.record(case(), seconds, limit)
    assert record["share"] == {"median": 0.5, "low": 0.5, "high": 0.75}
    assert (record["limit"], record["rate"], record["best_peer"]) == (kind, 2 * work, None)


@pytest.mark.parametrize("wrong", [1.01, np.nan, np.inf])
def test_a_side_with_a_wrong_result_is_not_timed(wrong: float) -> None:
    def build() -> Contest:
        def check() -> None:
            results = {"torch": (np.ones(3), np.array([1.0, wrong]))}
            harness.agree(results, (np.ones(3), np.ones(2)), 1e-3)

        return Contest(pytest.fail, {}, check)

    with pytest.raises(AssertionError, match=r"torch: result 1 is off by"):
        harness.measure(case(build=build), None, Protocol())


def test_measure_checks_then_times_every_side_equally_often() -> None:
    log: list[str] = []
    sides = {name: lambda name=name: log.append(name) for name in ("tilegrad", "numpy", "limit")}
    contest = Contest(sides["tilegrad"], {"numpy": sides["numpy"]}, lambda: log.append("check"))
    limit = Limit("copy", sides["limit"], 1.0)
    protocol = Protocol(sample=1e-5, budget=0.0, fewest=3, most=4)
    record = harness.measure(case(build=lambda: contest), limit, protocol)
    assert log[0] == "check"
    assert record["rounds"] == 3
    assert set(record["seconds"]) == {"tilegrad", "numpy"}
    assert record["share"]["median"] > 0


def test_cold_samples_are_single_calls_after_eviction(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    monkeypatch.setattr(harness.Evictor, "__call__", lambda self: log.append("evict"))
    contest = Contest(lambda: log.append("ours"), {}, lambda: None)
    protocol = Protocol(sample=1e-6, budget=0.0, fewest=4, most=4, evict=1024)
    harness.measure(case(build=lambda: contest), None, protocol)
    assert log[-8:] == ["evict", "ours"] * 4


def test_cases_are_sane() -> None:
    assert len({case.id for case in CASES}) == len(CASES) > 100
    for one in CASES:
        assert one.bytes > 0, one.id
        assert one.flops > 0, one.id
        assert len(one.name) <= 34, one.id  # a table's first column
    quick = [one for one in CASES if one.quick]
    assert len(quick) <= 25
    assert {one.family for one in quick} == {one.family for one in CASES}


def test_declared_work_of_known_cases() -> None:
    known = {one.id: (one.bytes, one.flops) for one in CASES}
    assert known["matmul/1024 TN"] == (12 * 1024**2, 2 * 1024**3)
    assert known["activation/relu 10000 backward"] == (120_000, 10_000)
    assert known["optim/Adam 669706"][0] == 28 * 669_706
    weights = 784 * 512 + 512 * 512 + 512 * 10
    assert known["train_step/SGD batch 32"][1] == 32 * (6 * weights - 2 * 784 * 512)


def test_every_family_has_cases_and_a_script() -> None:
    families = {module.__name__.rpartition(".")[2] for module in FAMILIES}
    assert families == {one.family for one in CASES}
    scripts = {path.stem.removeprefix("bench_") for path in BENCHMARKS.glob("bench_*.py")}
    assert scripts == families


SMALL = ("matmul/64 TN", "losses/mse_loss 100000", "losses/nll_loss 1024000",
         "losses/triplet_margin_loss 1024000", "losses/ctc_loss 128000",
         "fused_mlp/64x5 128 inference", "fused_mlp/64x5 128 training",
         "linear/1x784->512 relu backward", "linear/128x512->10 forward",
         "activation/relu 10000 backward", "activation/sigmoid 10000 forward",
         "activation/silu 10000 backward", "activation/gelu tanh 10000 forward",
         "softmax/softmax 128x10@1 backward", "softmax/log_softmax 128x10@1 forward",
         "cross_entropy/128x10 value and grad", "optim/SGD 669706", "optim/AdamW 669706",
         "optim/RMSprop centered momentum 669706", "optim/Adagrad 669706",
         "train_step/Adam batch 32", "tiny/linear 1x8->8",
         "tiny/8-8-2 SGD step batch 1")  # fmt: skip


@contextlib.contextmanager
def absent(monkeypatch: pytest.MonkeyPatch, *names: str) -> Iterator[None]:
    """Make peers look as if they were not installed."""
    for name in names:
        environment.PEERS[name].cache_clear()
        monkeypatch.setitem(sys.modules, name, None)
    try:
        yield
    finally:
        for name in names:
            environment.PEERS[name].cache_clear()


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("peers", [True, False], ids=["peers", "no peers"])
def test_sides_of_a_case_agree(name: str, peers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # jax takes half a second to compile a case: test_bench_peers.py has one of each kind
    with absent(monkeypatch, *(environment.PEERS if not peers else ["jax"])):
        contest = next(one for one in CASES if one.id == name).build()
        contest.check()
    assert contest.left_out == {}
    assert any(peer.startswith("torch") for peer in contest.peers) == peers
    assert set(contest.peers) <= {"numpy"} or peers


@pytest.mark.parametrize("name", [one.name for one in CASES if one.family == "pytorch"])
def test_sides_inside_pytorch_agree(name: str) -> None:
    contest = next(one for one in CASES if one.id == f"pytorch/{name}").build()
    contest.check()
    assert contest.left_out == {}
    assert "torch" in contest.peers


def test_limits_do_the_work_that_they_count(threads: int) -> None:
    for size in (100, 10_000, 3_000_000):
        copy = machine.Copy(size, threads)
        copy._target[:] = 0
        copy()
        source, target = copy._source, copy._target
        assert copy.work == (source.nbytes + target.nbytes) * copy._rounds
        assert size <= source.nbytes + target.nbytes <= size + 256 * threads
        assert len(source) == threads
        assert (source == target).all()
        assert source.ctypes.data % 64 == target.ctypes.data % 64 == 0
    call, flops = machine.multiply_add(threads)
    assert flops == call() > 1e6


def test_environment_equal_for_all_libraries() -> None:
    variables = environment.variables(2, [4, 6])
    assert {value for name, value in variables.items() if name.endswith("THREADS")} == {"2"}
    assert variables["GOMP_CPU_AFFINITY"] == "4 6"
    assert variables["NPROC"] == "2"
    assert "GOMP_CPU_AFFINITY" not in environment.variables(1, [])


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system cannot pin threads")
def test_too_many_threads_are_refused() -> None:
    count = len(os.sched_getaffinity(0))
    with pytest.raises(ValueError, match=rf"must be at most {count}.*; got {count + 1}"):
        environment.choose_cores(count + 1)


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores to pin threads to",
)
def test_no_worker_shares_the_core_of_the_calling_thread() -> None:
    script = """
import os, json
from tilegrad.bench import environment
environment.jax = lambda: None  # its threads may use every core
cores = environment.pin(2)
masks = {int(t): sorted(os.sched_getaffinity(int(t))) for t in os.listdir("/proc/self/task")}
print(json.dumps([cores, masks.pop(os.getpid()), list(masks.values())]))
"""
    cores = environment.choose_cores(2)
    variables = environment.variables(2, cores)
    folder = str(Path(tg.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=True, timeout=100,
        env={**os.environ, **variables, "PYTHONPATH": folder},
    )  # fmt: skip
    used, caller, workers = json.loads(done.stdout)
    assert used == cores
    assert caller == cores[:1]
    assert len(workers) >= 3  # one of OpenBLAS, one of tilegrad, one of OpenMP
    assert all(mask == cores[1:] for mask in workers)


def test_summary_shows_worst_and_best() -> None:
    records = [figures("slow", 0.5), figures("fast", 2.0), figures("quick", 8.0, "tiny")]
    lines = report.summary(result(records)).splitlines()
    assert " ".join(lines[1].split()) == "matmul 1.00 1 of 2 0.50 slow; 2.00 fast"
    assert " ".join(lines[3].split()) == "all 2.00 1 of 3"
    assert report.row(records[0]).endswith("slower")
    assert not report.row(records[1]).endswith("slower")
    named = report.row({**records[1], "left_out": {"torch compile": "no compiler"}})
    assert named.endswith("\n    torch compile left out: no compiler")


def test_missing_peers_are_named() -> None:
    text = report.heading(result([], versions={"tilegrad": "0", "numpy": "1", "torch": None}))
    assert "not installed: torch" in text
    assert "busy" not in text
    assert "other programs are busy (load 3.2)" in report.heading(result([], load=[3.2]))
    alone = harness.record(case(), {"tilegrad": [1.0]}, None)
    assert "none" in report.row(alone)
    assert "no peer" in report.summary(result([alone]))
    with pytest.raises(ValueError, match="needs a peer"):
        ratio_plot.plot(result([alone]), "unused.png")


def test_subtitle_of_one_family_fits_the_picture(tmp_path: Path) -> None:
    versions = {"numpy": "2.4.6", "torch": "2.13.0+cpu", "jax": "0.10.2", "onnxruntime": "1.31.0"}
    run = result([figures("fast", 2.0), figures("fast bf16", 1.0)], versions=versions)
    figure = ratio_plot.plot(run, tmp_path / "x.png")
    renderer = figure.canvas.get_renderer()
    title, subtitle = (text.get_window_extent(renderer) for text in figure.texts)
    assert subtitle.x1 < figure.bbox.x1
    assert subtitle.y1 < title.y0
    assert subtitle.y0 > max(axes.get_tightbbox(renderer).y1 for axes in figure.axes)
    text = " ".join(figure.texts[1].get_text().split())
    assert "onnxruntime 1.31.0; 1 thread, float32, bfloat16 where the name says bf16" in text


def test_list_prints_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert cpu.main(["--list", "--filter", "tiny/"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--filter", "nothing"], "--filter: must be part of a case's name; got 'nothing'"),
        (["--threads", "0"], "--threads: must be at least 1; got 0"),
        (["--json", "no/such/folder/x.json"], "--json: the folder must exist"),
        (["--threads", "1000"], "--threads must be at most"),
        (["--roofline", "no/such/folder/x.png"], "--roofline: the folder must exist"),
        (["--scaling", "--threads", "2"], "--scaling: takes no --threads"),
        (["--peers", "torch,thing"], "--peers: must be of numpy,torch,jax,onnxruntime; got thing"),
        (["--roofline", "x.png", "--filter", "tiny/"], "--roofline: needs a case with a limit"),
        (["gpu"], "invalid choice"),
    ],
)
def test_bad_options_are_refused(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cpu.main(arguments)
    assert stop.value.code == 2
    assert text in capsys.readouterr().err


def test_command_from_end_to_end(tmp_path: Path) -> None:
    """Three tiny cases in a process of their own: conditions, figures, JSON and picture."""
    stored, picture = tmp_path / "result.json", tmp_path / "result.png"
    command = [sys.executable, "-m", "tilegrad.bench", "--quick", "--filter", "tiny/",
               "--json", str(stored), "--plot", str(picture)]  # fmt: skip
    environ = {**os.environ, "PYTHONPATH": str(Path(tg.__file__).parents[1])}
    environ.pop("TILEGRAD_BENCH_THREADS", None)
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    loaded = json.loads(stored.read_text())
    assert loaded["threads"] == 1
    assert len(loaded["cores"]) <= 1
    assert loaded["quick"] is True
    assert loaded["versions"]["torch"]
    assert len(loaded["cases"]) == 3
    for record in loaded["cases"]:
        assert record["best_peer"] in record["ratios"]
        assert record["ratios"][record["best_peer"]]["low"] > 0
        assert "share" not in record
    assert "3 cases, about " in done.stdout
    assert loaded["ceilings"]["copy_gbytes"]["memory"] > 0
    assert not list(tmp_path.glob("*.partial"))
    assert f"Stored {stored}" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
