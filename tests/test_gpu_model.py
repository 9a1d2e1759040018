# SPDX-License-Identifier: MIT
"""Predictions printed, goals, pictures and pages made of them: no GPU is needed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from gpu_check_runs import module, program
from tilegrad.bench import (
    cuda,
    gpu_goals,
    gpu_report,
    gpu_roofline,
    gpu_state,
    same_bits,
)
from tilegrad.bench.device import Workbench
from tilegrad.bench.device_workloads import all_cases
from tilegrad.bench.harness import OURS

ROOT = Path(__file__).parents[1]
CASES = all_cases(Workbench())


def test_predictions_are_printed_without_a_gpu_and_labelled(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    picture = tmp_path / "roofline.png"
    options = ["--predict", "--filter", "cross_entropy/"]
    if has_matplotlib():
        options += ["--plot", str(picture)]
    assert cuda.main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "predictions of a model for an H200: nothing here was measured"
    assert any(line.split()[:2] == ["8192x32768", "bf16"] for line in lines)
    assert any("assumption: a load from memory" in line for line in lines)
    assert picture.exists() == has_matplotlib()


def test_a_goal_that_a_prediction_misses_is_said_in_one_unit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cuda.main(["--predict", "--filter", "fused_mlp/128x5"]) == 0
    (line,) = (
        one for one in capsys.readouterr().out.splitlines() if one.startswith("  fused MLP, half")
    )
    assert re.search(r"missed +\d{4}, wanted at most 3329 us \(fused_mlp/128x5 .* training\)", line)


# ---- the goals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("goal", gpu_goals.GOALS, ids=lambda goal: f"{goal.row}, {goal.peer}")
def test_every_goal_has_a_case(goal: gpu_goals.Goal) -> None:
    named = [case for case in CASES if goal in gpu_goals.of_case(case.id)]
    assert named, goal.cases
    if goal.peer == "copy":
        assert all(case.limited and case.family in cuda._MEMORY_BOUND for case in named)
    if goal.mean:
        assert len(named) >= 40
    if goal.peer == "torch tf32":  # beside the rung that is meant to reach it
        assert [case.id for case in named] == ["matmul_ladder/hopper_tf32 4096 f32"]


def record(name: str, ours: float, peers: dict[str, float], **more: Any) -> dict[str, Any]:
    family, _, rest = name.partition("/")
    ratios = {
        peer: dict.fromkeys(("median", "low", "high"), seconds / ours)
        for peer, seconds in peers.items()
    }
    times = {OURS: ours, **peers}
    return {
        "family": family, "name": rest, "bytes": 1e8, "flops": 1e10, "ratios": ratios,
        "seconds": {side: {"median": value} for side, value in times.items()},
        "best_peer": min(peers, key=lambda peer: peers[peer], default=None), **more,
    }  # fmt: skip


def a_run() -> dict[str, Any]:
    """Return what a run would store, with figures that nothing measured."""
    cases = [
        record("matmul/4096x4096x4096 NN bf16", 1e-3, {"torch": 1.03e-3}, same_bits=True,
               of_product=0.9, predicted={"seconds": 2e-3, "bound": "b", "kernels": ""}),
        record("matmul/8192x8192x8192 NN bf16", 1e-3, {"torch": 0.98e-3}, same_bits=True),
        record("train_step/SGD batch 128 f32", 20e-6,
               {"torch": 190e-6, "torch graph": 30e-6, "torch compile": 90e-6}),
        record("cross_entropy/8192x32768 bf16", 3e-4, {"torch": 6e-4}, same_bits=False,
               share={"median": 0.95, "low": 0.9, "high": 0.96}),
        record("host/matmul 8x8 f32", 1.5e-6, {}),
    ]  # fmt: skip
    limits = {"before": {"copy_gbytes": 4200.0, "torch_bf16_tflops": 770.0}}
    return {
        "date": "2026-01-02 00:00 UTC", "commit": "abc", "cases": cases, "limits": limits,
        "device": {"name": "a GPU"}, "versions": {"tilegrad": "0", "torch": "2"},
        "machine": {"python": "3.12"}, "start": {
            "python": {"median": 0.02}, "tilegrad": {"median": 0.12},
            "tilegrad, first matmul done": {"median": 0.3},
        },
        "conditions": {"data": "random normal", "clock": "CUDA events"},
        "gpu": {"before": {"sm_mhz": 1980.0, "watts": 120.0}},
    }  # fmt: skip


def test_goals_are_judged_by_the_worst_case() -> None:
    rows = {row.name: row for row in gpu_goals.rows(a_run())}
    large = rows["bf16 products 4096 and 8192"]
    assert (large.verdict, large.case) == ("must", "matmul/8192x8192x8192 NN bf16")
    mean = rows["bf16 products, geometric mean of all shapes"]
    assert (mean.verdict, mean.case, round(mean.value or 0, 3)) == ("must", "2 shapes", 1.005)
    step = rows["784-512-512-10, SGD step, batch 128"]
    assert (step.verdict, step.cases) == ("must", 2)
    assert rows["cross-entropy with gradient, of the copy"].verdict == "must"
    beside = rows["cross-entropy with gradient, beside torch"]
    assert (beside.verdict, beside.value) == ("missed", 2.0)
    assert rows["linear + gelu, forward and backward"].verdict == "not measured"
    assert rows["import"].verdict == "must"
    assert rows["first matmul"].verdict == "missed"
    assert (rows["determinism"].verdict, rows["determinism"].cases) == ("missed", 3)
    assert rows["determinism"].case == "cross_entropy/8192x32768 bf16"
    assert rows["host cost of a call"].verdict == "must"


def test_a_stored_run_is_printed_and_drawn_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, picture = tmp_path / "run.json", tmp_path / "roofline.png"
    path.write_text(json.dumps({"steps": {"bench": {"results": a_run()}}}))  # as gpu-check stores
    options = ["--plot", str(picture)] if has_matplotlib() else []
    assert cuda.main(["--from", str(path), *options]) == 0
    text = capsys.readouterr().out
    (line,) = (line for line in text.splitlines() if line.startswith("  4096x4096x4096"))
    assert line.split()[3:9] == ["1.00", "ms", "2.00", "ms", "0.50", "1.03"]
    assert "90 %" in line
    assert "0.97 (1.02) x torch: 1.03 stretch" in line
    assert "eager 190 us, graph 30.0 us, compile 90.0 us" in text
    assert "as found: sm_mhz 1980, watts 120" in text
    assert "predictions: 0 of 1 case within a quarter" in text
    assert picture.exists() == has_matplotlib()


@pytest.mark.skipif("not has_matplotlib()", reason="matplotlib is not installed")
def test_roofs_are_those_of_the_run_and_predictions_are_hollow(tmp_path: Path) -> None:
    run = a_run()
    assert gpu_roofline.roofs(run)["bf16 product"] == (770.0, True)
    assert gpu_roofline.bandwidth(run) == (4.2, True)
    assert len(gpu_roofline.points(run["cases"])) == 4  # a call's cost is no point
    figure = gpu_roofline.plot(run, tmp_path / "a.png")
    (axes,) = figure.axes
    assert all(len(points.get_facecolors()) for points in axes.collections)
    texts = [text.get_text() for text in axes.texts]
    assert "bf16 product: 770 TFLOP/s" in texts
    assert "float32 multiply-add: 67 TFLOP/s, not measured here" in texts
    predicted = {"cases": [gpu_report.as_if_measured(case) for case in CASES]}
    figure = gpu_roofline.plot(predicted, tmp_path / "b.png")
    assert not any(len(points.get_facecolors()) for points in figure.axes[0].collections)
    assert "nothing here was measured" in figure.texts[1].get_text()


@pytest.mark.skipif("not has_matplotlib()", reason="matplotlib is not installed")
def test_no_name_in_the_roofline_lies_on_another(tmp_path: Path) -> None:
    from matplotlib.text import Text

    predicted = {"cases": [gpu_report.as_if_measured(case) for case in CASES]}
    figure = gpu_roofline.plot(predicted, tmp_path / "a.png")
    (axes,) = figure.axes
    renderer = figure.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    level = {  # without the lines to far points, which belong to an annotation's box
        text.get_text(): Text.get_window_extent(text, renderer)
        for text in axes.texts
        if not text.get_rotation()
    }
    assert len(level) == 2 + len(gpu_roofline._NAMED)
    for (name, box), (other, another) in combinations(level.items(), 2):
        assert not box.overlaps(another), (name, other)
    for name, box in level.items():
        assert frame.x0 <= box.x0, name
        assert box.x1 <= frame.x1, name


def has_matplotlib() -> bool:
    import importlib.util

    return importlib.util.find_spec("matplotlib") is not None


# ---- the state of the card, the bits ------------------------------------------------------------


def test_state_is_read_and_never_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_state.read() == {}
    program(tmp_path, "nvidia-smi", f'echo "$@" > {tmp_path}/asked; echo "345, 3201, 1980, [N/A]"')
    assert gpu_state.read("cuda:1") == {"sm_mhz": 345, "memory_mhz": 3201, "most_sm_mhz": 1980}
    asked = (tmp_path / "asked").read_text().split()
    assert asked[0] == "--id=1"
    assert all(word.startswith(("--id", "--query-gpu", "--format")) for word in asked)
    program(tmp_path, "nvidia-smi", "exit 9")
    assert gpu_state.read() == {}


def test_bits_are_compared_of_all_results() -> None:
    values = np.array([0.0, np.nan, 1.0], np.float32)
    out = tg.asarray(values, device="sim")
    assert same_bits.same_bits(lambda: (out, values))
    signs = iter((0.0, -0.0))
    assert not same_bits.same_bits(lambda: np.array([next(signs)]))
    counter = iter((1.0, 2.0))

    def moves() -> Any:  # writes to the same memory at each call
        return tg.full((3,), next(counter), device="sim")

    assert not same_bits.same_bits(moves)


# ---- the pages ----------------------------------------------------------------------------------


def test_pages_show_what_results_and_model_give() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu_tables.py"), "--check"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_tables_take_their_outcomes_from_the_newest_result(tmp_path: Path) -> None:
    tables = module("gpu_tables")
    assert tables.newest(tmp_path) is None
    for date, name in (("2026-01-01", "h200-a"), ("2026-01-02", "h200-b")):
        stored = {"steps": {"bench": {"results": {**a_run(), "date": date}}}}
        (tmp_path / f"{name}.json").write_text(json.dumps(stored))
    (tmp_path / "cpu.json").write_text("{}")
    result = tables.newest(tmp_path)
    assert result["date"] == "2026-01-02"
    lines = tables.predictions(result)
    assert lines[0].startswith("a GPU, 2026-01-02, random normal data, commit abc; as found: sm")
    (line,) = (one for one in lines if one.startswith("| matmul/4096x4096x4096 NN bf16 |"))
    assert "| 1.00 ms | " in line
    (line,) = (one for one in lines if one.startswith("| matmul/4096x4096x4096 NT bf16 |"))
    assert line.endswith("|  |  |")
    assert tables.predictions(None)[0] == tables.NO_RESULT
    text = "a\n<!-- gpu goals -->\nold\n<!-- end of gpu -->\nb"
    assert "missed" in tables.filled(text, result)
    assert "missed" not in tables.filled(text, None)
