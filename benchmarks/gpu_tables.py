# SPDX-License-Identifier: MIT
"""Write what a GPU measured, and what a model predicts of it, into the pages of docs/.

    python benchmarks/gpu_tables.py --write     make the tables anew
    python benchmarks/gpu_tables.py --check     fail if they are not what results and model give

The tables stand between markers. Figures come from the newest results/<gpu>-<date>.json that
`make gpu-check` stored; where there is none, they say so.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tilegrad.bench import gpu_goals, gpu_op_model, gpu_report
from tilegrad.bench.device import Workbench
from tilegrad.bench.device_workloads import all_cases
from tilegrad.bench.device_workloads import fused_mlp as fused_mlp_cases
from tilegrad.bench.gpu_model import H200
from tilegrad.bench.harness import OURS
from tilegrad.bench.report import digits, duration

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = [ROOT / "docs" / name for name in ("performance-log.md", "performance.md",
                                           "matmul-ladder.md", "cross-entropy-ladder.md",
                                           "fused-mlp.md")]  # fmt: skip
NO_RESULT = "No result yet: nothing was measured on a GPU."
_BLOCK = re.compile(r"<!-- gpu (\w+) -->\n.*?<!-- end of gpu -->", re.DOTALL)

Result = dict[str, Any]


def newest(folder: Path = RESULTS) -> Result | None:
    """Return the benchmarks of the newest check of a GPU that is stored, or None."""
    found = []
    for path in folder.glob("*.json"):
        stored = json.loads(path.read_text())
        results = stored.get("steps", {}).get("bench", {}).get("results")
        if results and results["cases"]:
            found.append((results["date"], results))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def _measured(result: Result | None) -> dict[str, Result]:
    return {gpu_goals.identity(one): one for one in result["cases"]} if result else {}


def _said_of(result: Result | None) -> str:
    if result is None:
        return NO_RESULT
    clocks = result.get("gpu", {}).get("before", {})
    state = ", ".join(f"{name} {value:g}" for name, value in clocks.items())
    return (
        f"{result['device']['name']}, {result['date']}, {result['conditions']['data']} data, "
        f"commit {result['commit']}" + (f"; as found: {state}" if state else "") + "."
    )


def predictions(result: Result | None) -> list[str]:
    """Return each prediction that a goal or a ladder asks for, and its outcome if there is one."""
    outcomes, rows = _measured(result), []
    for case in all_cases(Workbench()):
        wanted = [goal for goal in gpu_goals.of_case(case.id) if not goal.mean]
        if case.predicted is None or not (wanted or case.family.endswith("_ladder")):
            continue
        one, outcome = case.predicted, outcomes.get(case.id)
        seconds = outcome["seconds"][OURS]["median"] if outcome else None
        rows.append([
            case.id.replace("|", "/"),
            duration(one.seconds),
            f"{one.bound}: {one.kernels}" if one.kernels else one.bound,
            "; ".join(goal.text() for goal in wanted),
            duration(seconds) if seconds else "",
            f"{seconds / one.seconds:.2f}" if seconds else "",
        ])  # fmt: skip
    head = ["case", "predicted", "bound", "goal (stretch)", "outcome", "outcome / predicted"]
    return [_said_of(result), "", *_table(head, rows)]


def constants(result: Result | None) -> list[str]:
    """Return the constants of the model with their sources."""
    rows = [[name, f"{value:.4g}", source] for name, value, source in H200.constants()]
    return _table(["constant", "value", "source"], rows)


def matmul_ladder(result: Result | None) -> list[str]:
    """Return TFLOP/s of each rung, and the prediction."""
    return _ladder(result, "matmul_ladder", "TFLOP/s", lambda one: one["flops"] / 1e12)


def cross_entropy_ladder(result: Result | None) -> list[str]:
    """Return GB/s of each rung, counting each logit and its gradient once, and the prediction."""
    return _ladder(result, "cross_entropy_ladder", "GB/s", lambda one: one["bytes"] / 1e9)


def _ladder(
    result: Result | None, family: str, unit: str, work: Callable[[Result], float]
) -> list[str]:
    outcomes, rows = _measured(result), []
    for case in all_cases(Workbench()):
        if case.family != family or case.predicted is None:
            continue
        amount = work({"flops": case.flops, "bytes": case.bytes})
        cells = [case.name, digits(amount / case.predicted.seconds), "", "", ""]
        if one := outcomes.get(case.id):
            cells[2] = digits(amount / one["seconds"][OURS]["median"])
            if best := one["best_peer"]:
                cells[3] = f"{digits(amount / one['seconds'][best]['median'])} ({best})"
                cells[4] = f"{one['ratios'][best]['median']:.2f}"
        rows.append(cells)
    head = ["rung, size", f"predicted, {unit}", "measured", "fastest peer", "ratio"]
    return [_said_of(result), "", *_table(head, rows)]


def goals(result: Result | None) -> list[str]:
    """Return a row for each row of goals: what is wanted, and what became of it."""
    rows = []
    for row in gpu_goals.rows(result or {"cases": []}):
        got = "" if row.value is None else digits(row.value) + f" ({row.case})" * bool(row.case)
        rows.append([row.name, row.wanted, got, row.verdict])
    lines = [_said_of(result), "", *_table(["row", "goal (stretch)", "worst", "verdict"], rows)]
    return lines + (["", *gpu_report.off_by(result)] if result else [])


def fused_mlp(result: Result | None) -> list[str]:
    """Return, in 10^9 samples a second, what bytes and operations allow, prediction, outcome."""
    outcomes, rows = _measured(result), []
    for case in fused_mlp_cases.cases(Workbench()):
        name, samples, _, way = case.name.split()
        width, layers = map(int, name.split("x"))
        arrays, products = (5, 4 * layers - 1) if way == "training" else (2, layers)
        one = gpu_op_model.fused_mlp(int(samples), width, layers, training=way == "training")
        outcome = outcomes.get(case.id)
        rows.append([
            f"{width}, {way}", str(2 * width * arrays), f"{2 * width * width * products:,}",
            digits(H200.copy / (2 * width * arrays) / 1e9),
            digits(H200.tensor / (2 * width * width * products) / 1e9),
            digits(int(samples) / one.seconds / 1e9), one.kernels,
            digits(int(samples) / outcome["seconds"][OURS]["median"] / 1e9) if outcome else "",
        ])  # fmt: skip
    head = ["columns", "bytes a sample", "operations a sample", "bytes allow", "operations allow",
            "predicted", "how", "measured"]  # fmt: skip
    return [_said_of(result), "", *_table(head, rows)]


TABLES: dict[str, Callable[[Result | None], list[str]]] = {
    "predictions": predictions,
    "constants": constants,
    "matmul_ladder": matmul_ladder,
    "cross_entropy_ladder": cross_entropy_ladder,
    "goals": goals,
    "fused_mlp": fused_mlp,
}


def filled(text: str, result: Result | None) -> str:
    """Return a page with its tables made anew."""

    def block(match: re.Match[str]) -> str:
        lines = "\n".join(TABLES[match[1]](result))
        return f"<!-- gpu {match[1]} -->\n{lines}\n<!-- end of gpu -->"

    return _BLOCK.sub(block, text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 1 if --check finds a page that is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--write", action="store_true", help="make the tables anew")
    how.add_argument("--check", action="store_true", help="fail if they are not up to date")
    args = parser.parse_args(argv)
    result, stale = newest(), []
    for page in PAGES:
        text = page.read_text()
        new = filled(text, result)
        if args.write and new != text:
            page.write_text(new)
        elif new != text:
            stale.append(page.name)
    if stale:
        print(f"not up to date: {', '.join(stale)}; run {Path(__file__).name} --write")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
