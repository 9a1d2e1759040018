# SPDX-License-Identifier: MIT
"""Goals of the benchmarks: the table, its verdicts, and what reports and documents say of them."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tilegrad.bench import goals, report
from tilegrad.bench.goals import GOALS, MISSED, REACHED, UNMEASURED, Goal
from tilegrad.bench.workloads import all_cases

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


def record(case: str, ours: float = 1e-3, **peers: float) -> dict[str, Any]:
    """Return a case as a run stores it, with each peer so many times as slow as ours."""
    family, name = case.split("/", 1)
    spread = {peer.replace("_", " "): ratio for peer, ratio in peers.items()}
    times = {peer: {"median": ours * ratio} for peer, ratio in spread.items()}
    return {
        "family": family,
        "name": name,
        "bytes": 1e6,
        "flops": 1e9,
        "seconds": {"tilegrad": {"median": ours}, **times},
        "ratios": {
            peer: {"median": ratio, "low": ratio, "high": ratio} for peer, ratio in spread.items()
        },
        "best_peer": min(spread, key=lambda peer: spread[peer], default=None),
    }


def run(records: list[dict[str, Any]], threads: int = 1, **changes: Any) -> dict[str, Any]:
    machine = {"cpu": "c", "isa": "avx512", "features": ["avx512f"], **changes.pop("machine", {})}
    limits = {"before": {"fma_gflops": 1e9}}
    return {"cases": records, "threads": threads, "machine": machine, "date": "2026-01-02",
            "limits": limits, **changes}  # fmt: skip


def test_every_goal_has_a_case() -> None:
    """But for bfloat16, whose cases are there where the device has it."""
    known = [case.id for case in all_cases()]
    known += [f"matmul/{size} NN bf16" for size in (64, 128, 256, 512, 1024)]
    for goal in GOALS:
        assert any(re.fullmatch(goal.cases, case) for case in known), goal
        assert goal.one is not None or goal.two is not None, goal


@pytest.mark.parametrize(
    ("case", "one", "two"),
    [
        ("matmul/64 NT", ["1.3 x fastest"], ["1.3 x fastest"]),
        ("matmul/128 TN", ["1.1 x fastest"], ["1.3 x fastest"]),
        ("matmul/4096 NN", ["0.95 x fastest"], ["0.95 x fastest"]),
        ("matmul/1024 NN bf16", [], ["1.6 x fastest"]),
        ("matmul/128 TT", [], []),
        ("linear/128x512->10 dx", ["1.5 x fastest"], ["1.5 x fastest"]),
        ("linear/128x512->10 backward", [], []),
        ("activation/gelu tanh 10000 forward", ["4 x torch", "1.5 x jax"],
         ["4 x torch", "1.5 x jax"]),
        ("activation/gelu 10000 forward", ["1.2 x fastest"], ["1.2 x fastest"]),
        ("train_step/SGD batch 32", ["2 x torch", "1.45 x jax"], ["1.8 x torch"]),
        ("tiny/8-8-2 SGD step batch 1", ["10 us"], ["10 us"]),
    ],
)  # fmt: skip
def test_goals_of_cases(case: str, one: list[str], two: list[str]) -> None:
    for threads, wanted in ((1, one), (2, two)):
        texts = (goal.text(threads) for goal in goals.of_case(case))
        assert [text for text in texts if text] == wanted


def verdicts(measured: dict[str, Any], threads: int = 1) -> list[tuple[str, str]]:
    return [(o.peer, o.verdict) for o in goals.outcomes(measured, threads)]


def test_a_goal_is_measured_against_its_peer() -> None:
    found = record("train_step/SGD batch 32", torch=2.0, torch_by_hand=1.0, jax=1.44)
    assert verdicts(found) == [("torch", REACHED), ("jax", MISSED)]
    assert verdicts(found, 2) == [("torch", REACHED)]
    # the fastest of a peer's ways, and the fastest of all
    gelu = record("activation/gelu tanh 10000 forward", torch=5.0, torch_out=3.9)
    assert verdicts(gelu) == [("torch out", MISSED), ("", UNMEASURED)]
    assert verdicts(record("matmul/64 NN", numpy=1.29, torch=1.5)) == [("numpy", MISSED)]
    assert verdicts(record("matmul/64 NN", numpy=1.296, torch=1.5)) == [("numpy", REACHED)]
    assert verdicts(record("matmul/64 NN")) == [("", UNMEASURED)]


def test_a_time_is_reached_from_below() -> None:
    case = "tiny/linear 1x8->8"
    assert verdicts(record(case, 0.99e-6)) == [("time", REACHED)]
    assert verdicts(record(case, 1.02e-6, torch=50.0)) == [("time", MISSED)]


def test_a_row_asks_for_every_case_and_for_the_mean() -> None:
    def square(*ratios: float) -> goals.Row:
        sizes = (512, 1024, 2048)
        records = [record(f"matmul/{n} NN", torch=r) for n, r in zip(sizes, ratios, strict=False)]
        return goals.rows(records, 1)[0]

    good = square(0.95, 1.06)
    assert (good.verdict, good.reached, good.mean, good.mean_wanted) == (REACHED, 2, 1.0, 1.0)
    low = square(0.96, 0.97)  # each is above 0.95, the mean is not
    assert (low.verdict, low.reached, low.mean) == (MISSED, 2, 0.96)
    one = square(2.0, 0.94, 0.99)
    assert (one.verdict, one.reached) == (MISSED, 2)
    assert one.worst is not None
    assert (one.worst[0].got, one.worst[1]) == (0.94, "matmul/1024 NN")
    assert square().verdict == UNMEASURED


def test_worst_of_a_row_is_farthest_from_its_own_goal() -> None:
    table = (Goal("r", "a/x", "*", 4.0, 4.0), Goal("r", "a/y", "", 2.0, 2.0))
    found = [record("a/x", torch=3.0), record("a/y", 8e-6, torch=1.0)]
    (row,) = goals.rows(found, 1, table)
    assert row.worst is not None
    assert row.worst[1] == "a/y"  # a quarter of what is asked for; the other has three quarters


def test_report_says_what_became_of_goals() -> None:
    found = [record("matmul/64 NN", torch=1.5), record("matmul/128 NN", torch=1.0),
             record("matmul/64 NN bf16", torch=9.0)]  # fmt: skip
    assert report.row(found[0]).endswith("1.3 x fastest: 1.50 reached")
    assert report.row(found[1]).endswith("1.1 x fastest: 1.00 not reached")
    lines = [" ".join(line.split()) for line in report.goal_rows(run(found))]
    assert (
        "small float32 products not reached 1 of 2 128 NN, 1.1 x fastest: 1.00 not reached" in lines
    )
    assert (
        "bfloat16 products not reached 0 of 1 64 NN bf16, 10 x fastest: 9.00 not reached; "
        "set for a processor with AMX" in lines
    )
    assert lines[0] == "goals reached farthest from its goal"
    assert lines[-2] == "reached: how many of the goals whose case and peer were measured; " + (
        "a case can have several"
    )
    assert lines[-1].startswith("not measured: large float32 products; layer 512->10")
    assert "gelu tanh;" in lines[-1]
    on_amx = report.goal_rows(run(found, machine={"features": ["amx_tile"]}))
    assert not any("AMX" in line for line in on_amx)


def test_a_mean_that_is_asked_for_is_explained() -> None:
    lines = report.goal_rows(run([record("matmul/512 NN", torch=0.96)]))
    assert lines[1].endswith("; mean ratio 0.96 of 1.00")
    assert lines[2].endswith("mean ratio: geometric, of the row's cases, has a goal of its own")


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("performance_tables")


def test_tables_of_goals(tables: Any) -> None:
    first = run([record("matmul/64 NN", torch=1.5), record("tiny/linear 1x8->8", 2e-6)])
    second = run([record("matmul/64 NN", torch=1.0)], threads=2, held="avx2")
    rows = "\n".join(tables.goal_rows([first, second], ["a", "b"]))
    assert "| | goals | 1 thread | 2 threads, avx2 |".replace("| |", "|  |") in rows
    assert "| **1 of 1**; 1.50 of 1.3, 64 NN | 0 of 1; 1.00 of 1.3, 64 NN |" in rows
    assert "| tiny calls | 1 us; 1.5 us; 10 us | 0 of 1; 2.00 us of 1 us, linear 1x8->8 |" in rows
    assert "this one has none" in rows
    every = tables.every_goal([first, second], ["a", "b"])
    assert "| matmul/64 NN | fastest | **1.50** of 1.3 | 1.00 of 1.3 |" in every
    assert "| tiny/linear 1x8->8 | (time) | 2.00 of 1 us |  |" in every


def test_a_goal_beyond_the_peak_is_told(tables: Any) -> None:
    case = record("matmul/64 NN", 1e-3, torch=1.1)  # goal 1.3
    limits = {"before": {"fma_gflops": 150.0}, "after": {"fma_gflops": 160.0}}
    result = run([case | {"flops": 150e6}], limits=limits)
    assert "| matmul/64 NN | fastest | 1.10 of 1.3, FMA 1.17 |" in tables.every_goal(
        [result], ["a"]
    )
    limits["after"]["fma_gflops"] = 200.0  # 1.47: it could be reached
    assert "| matmul/64 NN | fastest | 1.10 of 1.3 |" in tables.every_goal([result], ["a"])


def test_table_of_all_cases(tables: Any) -> None:
    first = run([record("matmul/64 NN", torch=1.5), record("matmul/x")])
    first["cases"][0] |= {"limit": "FMA", "share": {"median": 0.5}}
    second = run([record("matmul/64 NN", torch=1.25)], threads=2)
    lines = tables.every_case([first, second], ["a", "b"])
    assert lines[2] == (
        "| matmul/64 NN | 1.00 ms | torch 1.50 ms | 1.50 | 1.50 - 1.50 | 50 % FMA | 1.25 |"
    )
    assert lines[3] == "| matmul/x | 1.00 ms | none |  |  | - |  |"


def test_documents_show_what_is_stored(tables: Any) -> None:
    readme_table = importlib.import_module("readme_table")
    store_results = importlib.import_module("store_results")
    for name in store_results.DOCUMENTS:
        document = ROOT / name
        text = document.read_text()
        assert readme_table.rewritten(document) == text, f"{name}: {store_results.__doc__}"
        for kind in set(re.findall(r"<!-- ([a-z-]+):", text)):
            assert kind in readme_table.KINDS, f"{name}: no table is called {kind}"


def test_pictures_are_there() -> None:
    page = ROOT / "docs" / "performance.md"
    for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text()):
        assert (page.parent / name).exists(), name


def test_pictures_of_runs_that_have_limits(tables: Any) -> None:
    runs = [run([], ceilings={}), run([], threads=2)]
    assert tables.rooflines(runs, ["../r/a.json", "b.json"]) == [
        "![Roofline, 1 thread](../r/a-roofline.png)"
    ]
    assert tables.rooflines(runs[1:], ["b.json"]) == ["No run with a roofline is stored yet."]


def test_store_results_names_in_documents_what_is_there(tables: Any, tmp_path: Path) -> None:
    store_results = importlib.import_module("store_results")
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    stored = run([record("matmul/64 NN", torch=1.5)])
    (results / "cpu-1t.json").write_text(json.dumps(stored))
    (results / "cpu-2t-avx2.json").write_text(json.dumps({**stored, "held": "avx2"}))
    blocks = "<!-- goals: old.json -->\nold\n<!-- end of goals -->\n"
    (tmp_path / "README.md").write_text(f"Before\n{blocks}After\n")
    scaling = "<!-- scaling: -->\n<!-- end of scaling -->\n"
    for name in ("performance.md", "performance-cases.md", "pytorch.md"):
        (tmp_path / "docs" / name).write_text(blocks + scaling)
    assert store_results.paste(tmp_path) == list(store_results.DOCUMENTS)
    readme = (tmp_path / "README.md").read_text()
    assert "goals: benchmarks/results/cpu-1t.json benchmarks/results/cpu-2t-avx2.json" in readme
    assert readme.startswith("Before\n<!--")
    assert "1.50 of 1.3" in readme
    page = (tmp_path / "docs" / "performance.md").read_text()
    assert "goals: ../benchmarks/results/cpu-1t.json ../benchmarks" in page
    assert "No such run is stored yet" in page
    assert store_results.paste(tmp_path) == []


def test_store_results_runs_what_it_says(tables: Any) -> None:
    store_results = importlib.import_module("store_results")
    command = store_results.command("cpu-2t", Path("out"), quick=True)
    assert command[1:7] == ["-m", "tilegrad", "bench", "cpu", "--threads", "2"]
    assert command[-1] == "--quick"
    assert "out/cpu-2t-roofline.png" in command
    assert "--roofline" not in store_results.command("cpu-1t-avx2", Path("out"), quick=False)
    assert "--roofline" not in store_results.command("cpu-scaling", Path("out"), quick=False)
    assert {isa for isa, _ in store_results.RUNS.values()} == {"", "avx2"}
