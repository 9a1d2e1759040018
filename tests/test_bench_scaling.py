# SPDX-License-Identifier: MIT
"""The model of more threads, the measuring of two, and the roofline."""

from __future__ import annotations

import argparse
import importlib
import json
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest

import tilegrad as tg
from tilegrad import _cpu
from tilegrad.bench import machine, roofline, scaling
from tilegrad.bench.harness import Limit, Protocol
from tilegrad.bench.scaling_model import COUNTS, Scaling, serial_share, speedup
from tilegrad.bench.workloads import all_cases

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
CASES = {case.id: case for case in all_cases()}


def work(**changes: Any) -> Scaling:
    """Return a millisecond of work that divides perfectly, but for the changes."""
    values: dict[str, Any] = {"seconds": 1e-3, "call": 0.0, "joins": 0, "join": 0.0, "pieces": 6400,
                              "serial": 0.0, "bytes": 0.0, "private": 1e6}  # fmt: skip
    return Scaling(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "count", "wanted"),
    [
        ({}, 64, (64.0, "")),
        ({"serial": 0.25}, 64, (round(1 / (0.25 + 0.75 / 64), 2), "serial part")),
        ({"call": 0.5e-3}, 2, (round(1 / 0.75, 2), "call")),
        ({"pieces": 7}, 4, (3.5, "pieces")),
        ({"pieces": 7}, 64, (7.0, "pieces")),
        # 250 MB at 250 GB/s take as long as one thread does
        ({"bytes": 250e6}, 64, (1.0, "memory")),
        # 32 MB: half a megabyte a core, in its own cache
        ({"bytes": 32e6}, 64, (64.0, "")),
        ({"joins": 10, "join": 25e-6}, 2, (round(1 / 0.75, 2), "joins")),
        ({"seconds": 0.0}, 2, (1.0, "")),
    ],
)
def test_each_term_of_the_model(
    changes: dict[str, float], count: int, wanted: tuple[float, str]
) -> None:
    assert speedup(work(**changes), count, socket=250.0, join_more=0.0) == wanted


def test_joins_cost_more_with_every_thread() -> None:
    case = work(joins=4, join=1e-6)
    gains = [speedup(case, count, join_more=1e-6)[0] for count in (1, 2, 8, 32, 64)]
    assert gains[0] == 1.0
    exact = [1e-3 / (1e-3 / p + 4 * (1e-6 + (p - 2) * 1e-6)) for p in (2, 8, 32, 64)]
    assert gains[1:] == pytest.approx(exact, abs=0.006)
    assert gains[3] > gains[4]  # more threads are slower, and the model says so


def test_more_threads_never_help_serial_work() -> None:
    case = work(serial=1.0, pieces=1)
    assert [speedup(case, count)[0] for count in (1, 2, 64)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("pieces", [2, 7, 128])
def test_serial_share_is_what_the_model_was_made_with(share: float, pieces: int) -> None:
    case = work(serial=share, pieces=pieces, joins=3, join=2e-6)
    two = 1e-3 / speedup(case, 2)[0]
    assert serial_share(1e-3, two, 6e-6, pieces) == pytest.approx(share, abs=0.03)


def test_noise_makes_no_share_below_nothing_or_above_all() -> None:
    assert serial_share(1.0, 0.3, 0.0, 8) == 0.0
    assert serial_share(1.0, 1.7, 0.0, 8) == 1.0
    assert serial_share(0.0, 0.0, 0.0, 8) == serial_share(1.0, 0.5, 0.0, 1) == 1.0


def test_joins_and_pieces_are_counted() -> None:
    pool_before = tg.num_threads()
    joins, pieces = scaling.count(CASES["activation/relu 100000 forward"], (1, 2))
    assert joins == {"1": 0, "2": 1}
    assert pieces["1"] == 0.0
    assert pieces["2"] > 1
    assert scaling.count(CASES["tiny/linear 1x8->8"], (2,)) == ({"2": 0}, {"2": 0.0})
    assert tg.num_threads() == pool_before


def test_measure_times_both_and_restores_the_threads() -> None:
    seen: dict[int, int] = {1: 0, 2: 0}
    case = CASES["activation/relu 10000 forward"]
    contest = case.build()

    def ours() -> Any:
        seen[tg.num_threads()] += 1
        return contest.ours()

    from dataclasses import replace

    watched = replace(case, build=lambda: replace(contest, ours=ours))
    limits = {1: Limit("copy", lambda: None, 10.0), 2: Limit("copy", lambda: None, 20.0)}
    before = tg.num_threads()
    try:
        found = scaling.measure(watched, limits, Protocol(sample=1e-4, budget=0, fewest=3, most=3))
    finally:
        tg.set_num_threads(before)
    assert min(seen.values()) > 3
    assert set(found["seconds"]) == {"1 thread", "2 threads"}
    assert found["speedup"]["median"] > 0
    assert found["limit"] == "copy"
    assert found["limit_speedup"]["median"] > 0
    line = scaling.row({**found, "speedup": {"median": 1.5, "low": 1.25, "high": 1.75}})
    assert "1.50" in line
    assert " 75 %" in line
    assert "1.25 - 1.75" in line


def stored_scaling() -> dict[str, Any]:
    counts = [str(count) for count in COUNTS]
    shared = {
        "family": "matmul", "name": "1024 NN", "bytes": 12e6, "flops": 2e9, "rounds": 9,
        "joins": dict.fromkeys(counts, 8), "pieces": dict.fromkeys(counts, 64.0),
        "seconds": {"1 thread": {"median": 10e-3}, "2 threads": {"median": 5.5e-3}},
        "speedup": {"median": 1.8, "low": 1.7, "high": 1.9},
        "limit": "FMA", "limit_speedup": {"median": 1.96},
    }  # fmt: skip
    alone = {
        **shared, "name": "tiny", "joins": dict.fromkeys(counts, 0),
        "pieces": dict.fromkeys(counts, 0.0), "speedup": {"median": 1.0, "low": 1.0, "high": 1.0},
    }  # fmt: skip
    del alone["limit_speedup"]
    return {
        "kind": "scaling", "machine": {"cpu": "c", "isa": "avx512"}, "date": "2026-01-02 03:04 UTC",
        "join_seconds": 0.3e-6, "call_seconds": 0.4e-6, "private_bytes": 2e6,
        "cases": [shared, alone],
    }  # fmt: skip


def test_tables_of_scaling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    tables = importlib.import_module("performance_tables")
    result = json.loads(json.dumps(stored_scaling()))
    lines = tables.scaling_rows([result], ["x.json"])
    assert "| matmul/1024 NN | 10.0 ms | 5.50 ms | 90 % | 85 - 95 % | 98 % FMA |" in lines
    assert "Geometric means by family: matmul 67 %." in lines[-1]
    model = tables.model_rows([result], ["x.json"])
    # two threads left 11 % undivided: 1.8 = 1 / (0.11 + 0.89 / 2)
    assert model[2].startswith("| matmul/1024 NN | 167 | 8 | 64 | 11 % | 3.0 |")
    assert model[2].endswith("| serial part |")
    assert model[3] == (
        "| matmul/tiny | 167 | 0 | - | not shared | 1.0 | 1.0 | 1.0 | 1.0 | 1.0 | serial part |"
    )
    with pytest.raises(ValueError, match="must be one run of tilegrad bench cpu --scaling"):
        tables.scaling_rows([{"cases": []}], ["cpu-1t.json"])


def test_terms_of_the_model_stand_beside_what_it_expects() -> None:
    lines = scaling.terms(stored_scaling()).splitlines()
    text = " ".join(" ".join(lines[:5]).split())
    assert "T(p) = call + max(work (serial + (1 - serial) ceil(pieces / p) / pieces)" in text
    assert "With one thread T(1) = call + work, as measured: no joins." in text
    assert "call 0.40 us, join 0.30 us, both measured; join_more 0.15 us" in text
    assert lines[5].split()[:8] == ["joins", "pieces", "serial", "x4", "x8", "x16", "x32", "x64"]
    shared, alone = (" ".join(line.split()) for line in lines[6:])
    assert shared.startswith("matmul/1024 NN 8 64 11 % 3.0 ")
    assert shared.endswith("serial part")
    assert alone == "matmul/tiny 0 - not shared 1.0 1.0 1.0 1.0 1.0 serial part"


def test_one_thread_is_what_was_measured() -> None:
    # memory of a socket, joins and pieces bound more threads only
    case = work(bytes=1e9, joins=5, join=1e-4, pieces=3, call=1e-4, serial=0.5)
    assert speedup(case, 1) == (1.0, "")


def test_a_short_run_says_what_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = stored_scaling()
    case = CASES["activation/relu 10000 forward"]
    monkeypatch.setattr(scaling.environment, "leave_out", lambda names: None)
    monkeypatch.setattr(scaling.environment, "pin", lambda threads: [0, 1])
    monkeypatch.setattr(scaling.session, "load", lambda: 3.2)
    monkeypatch.setattr(scaling, "measure", lambda case, limits, protocol: stored["cases"][0])
    monkeypatch.setattr(scaling, "count", lambda case: ({"64": 8}, {"64": 64.0}))
    monkeypatch.setattr(scaling, "terms", lambda result: "the terms")
    args = argparse.Namespace(threads=2, quick=True, cold=False, json=None)
    scaling.run([case], args, [])
    text = capsys.readouterr().out
    assert "other programs are busy (load 3.2): expect wide quartiles, and do not store\n" in text
    assert "\n1 case, about " in text
    assert text.endswith("\nthe terms\n")


def test_efficiency_of_families() -> None:
    text = scaling.efficiencies(stored_scaling()["cases"])
    assert " ".join(text.splitlines()[1].split()) == "matmul 67 % worst 50 %"


def test_copies_of_each_level_fit_it() -> None:
    caches = {"L1": "48K", "L2": "2048K", "L3": "260M"}
    for threads in (1, 2):
        sizes = machine.copy_sizes(caches, threads)
        assert list(sizes) == ["L1", "L2", "L3", "memory"]
        assert sizes["L1"] / threads < 48 << 10
        assert 48 << 10 < sizes["L2"] / threads < 2 << 20
        assert (2 << 20) * threads < sizes["L3"] < 260 << 20
        assert sizes["memory"] > 260 << 20
    assert list(machine.copy_sizes({}, 1)) == ["memory"]
    assert "L3" not in machine.copy_sizes({"L2": "1M", "L3": "4M"}, 1)


def test_native_copy_refuses_what_does_not_fit() -> None:
    import numpy as np

    a = np.zeros((2, 8), np.float32)
    assert _cpu._copy(a, a + 1, 3) == 2 * 3 * a.nbytes
    assert (a == 1).all()
    with pytest.raises(ValueError, match="_copy: source and target must have the same two sizes"):
        _cpu._copy(a, np.zeros((2, 9), np.float32), 1)


def a_run() -> dict[str, Any]:
    """Return a run with every named kernel at half of what its case could be as fast as."""
    records = []
    for name in roofline.POINTS:
        case = CASES.get(name)
        if case is None:
            continue  # bfloat16 where the device has none
        per_byte = case.flops / case.bytes
        rate = 0.5e9 * roofline.attainable(per_byte, 200.0, 30.0)
        records.append({
            "family": case.family, "name": case.name, "bytes": case.bytes, "flops": case.flops,
            "seconds": {"tilegrad": {"median": case.flops / rate}}, "share": {"median": 0.5},
        })  # fmt: skip
    return {
        "machine": {"cpu": "a processor", "isa": "avx512"}, "threads": 1, "cache": "hot",
        "date": "2026-01-02 03:04 UTC", "cases": records,
        "ceilings": {"fma_gflops": 200.0,
                     "copy_gbytes": {"L1": 380.0, "L2": 85.0, "L3": 30.0, "memory": 24.0}},
    }  # fmt: skip


def test_roofline_names_every_kernel_and_no_name_covers_another(tmp_path: Path) -> None:
    result = a_run()
    path = tmp_path / "roofline.png"
    figure = roofline.plot(result, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    (axes,) = figure.axes
    texts = [text for text in axes.texts if text.get_text()]
    labels = {roofline.POINTS[f"{r['family']}/{r['name']}"] for r in result["cases"]}
    shown = [text for text in texts if text.get_text() in labels]
    assert {text.get_text() for text in shown} == labels
    assert {"L1 380 GB/s", "memory 24 GB/s", "multiply-add 200 GFLOP/s"} <= {
        text.get_text() for text in texts
    }
    renderer = figure.canvas.get_renderer()
    from matplotlib.text import Text

    boxes = {text.get_text(): Text.get_window_extent(text, renderer) for text in shown}
    for (one, a), (other, b) in combinations(boxes.items(), 2):
        assert not a.overlaps(b), f"{one} lies on {other}"
    frame = figure.bbox
    for name, box in boxes.items():
        assert frame.x0 <= box.x0, name
        assert box.x1 <= frame.x1, name
        assert frame.y0 <= box.y0, name
        assert box.y1 <= frame.y1, name


def test_every_family_with_a_limit_has_a_point() -> None:
    limited = {case.family for case in CASES.values() if case.limited}
    assert {name.partition("/")[0] for name in roofline.POINTS} == limited
    unknown = {name for name in roofline.POINTS if name not in CASES and "bf16" not in name}
    assert not unknown
    ops = {case.name.split()[0] for case in CASES.values() if case.family == "activation"}
    named = {name.partition("/")[2].split()[0] for name in roofline.POINTS if "activation" in name}
    assert named == ops


def test_roofline_of_a_selection(tmp_path: Path) -> None:
    result = a_run()
    few = [*result["cases"][:3], {**result["cases"][0], "name": "another"}]
    assert list(roofline.named(few)) == [*list(roofline.POINTS.values())[:3], "matmul another"]
    figure = roofline.plot({**result, "cases": few}, tmp_path / "few.png")
    assert "Small points" not in figure.texts[1].get_text()
    (axes,) = figure.axes
    assert axes.get_ylim()[1] / axes.get_ylim()[0] > 50
    many = [*result["cases"], *({**few[3], "name": f"another {i}"} for i in range(30))]
    assert len(roofline.named(many)) == len(result["cases"])
    result["cases"] = [{**result["cases"][0], "name": "another"}]
    assert list(roofline.named(result["cases"])) == ["matmul another"]
    roofline.plot(result, tmp_path / "x.svg")
    result["cases"] = [{key: v for key, v in result["cases"][0].items() if key != "share"}]
    with pytest.raises(ValueError, match="needs a case with a limit"):
        roofline.plot(result, tmp_path / "y.png")


def test_a_name_goes_to_the_nearest_free_place() -> None:
    inside = (0.0, 0.0, 400.0, 400.0)
    point = (196.0, 196.0, 204.0, 204.0)
    taken = [point]
    distances = []
    for _ in range(8):
        box = roofline.place(200, 200, (40, 10), taken, inside, 1.0)
        assert all(roofline._overlap(box, other) == 0 for other in taken)
        taken.append(box)
        middle = ((box[0] + box[2]) / 2 - 200, (box[1] + box[3]) / 2 - 200)
        distances.append(max(abs(middle[0]) - 20, abs(middle[1]) - 5))
    assert all(a <= b + 3 for a, b in pairwise(distances))
    # in a corner it stays inside
    box = roofline.place(399, 399, (40, 10), [], inside, 1.0)
    assert box[2] <= 400
    assert box[3] <= 400
