# SPDX-License-Identifier: MIT
"""The record of a `make gpu-check`: a JSON file and a short text, both written after every step."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FORMAT = 1  # of the JSON; raised when a reader of the old one would be misled
PASSED, FAILED, LATE, NOT_RUN = "passed", "failed", "timed out", "not run"


class Results:
    """What has been found so far; `save` writes it whole or not at all.

    Steps of the same day, GPU and commit are added to the file that is there, so that a check can
    be run in several parts.

    Args:
        folder: Where the files go.
        stem: Their name without ending.
        head: What is said about the run: date, commit, machine.
        before: The file of an earlier run, in another folder, that is added to too.
    """

    def __init__(
        self, folder: Path, stem: str, head: dict[str, Any], before: Path | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.json = folder / f"{stem}.json"
        self.text = folder / f"{stem}.md"
        self.data: dict[str, Any] = {"format": FORMAT, **head, "steps": {}}
        for path in (before, self.json):
            found = _read(path) if path else {}
            if found.get("format") == FORMAT and found.get("commit") == head.get("commit"):
                self.data["steps"] |= found["steps"]

    def add(self, step: str, record: dict[str, Any]) -> None:
        """Store what a step found, in place of what an earlier run of it did."""
        before = self.data["steps"].pop(step, {})
        if "part" in record:
            record = _with_parts(before, record)
        if "results" in before and "results" in record:
            record["results"] = merged(before["results"], record["results"])
        self.data["steps"][step] = record
        self.save()

    def save(self) -> None:
        """Write both files."""
        _write(self.json, json.dumps(self.data, indent=1) + "\n")
        _write(self.text, text_of(self.data))


def _with_parts(before: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """Return what the parts of the tests found together, this one and those before it."""
    of = record["part"].partition("/")[2]
    parts = {
        name: one
        for name, one in before.get("parts", {}).items()
        if name != record["part"] and name.partition("/")[2] == of
    }
    parts[record["part"]] = record
    ran = list(parts.values())
    worst = next((one["status"] for one in ran if one["status"] != PASSED), PASSED)
    missing = int(of) - len(parts)
    count = {key: sum(one.get(key, 0) for one in ran) for key in ("tests", "failed", "skipped")}
    text = "{tests} tests, {failed} failed, {skipped} skipped".format(**count)
    return {
        **record,
        **count,
        "status": worst if not missing or worst != PASSED else NOT_RUN,
        "summary": text + (f"; {missing} of {of} parts not run yet" if missing else ""),
        "failures": [failure for one in ran for failure in one.get("failures", [])],
        "parts": parts,
    }


def merged(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return a run of benchmarks with the cases of an earlier one that it did not run."""
    lists = ("cases", "left_out", "failed")
    again = {_id(one) for key in ("cases", "failed") for one in after[key]}
    kept: dict[str, Any] = {
        key: [one for one in before[key] if _id(one) not in again] for key in lists
    }
    done = {_id(one) for one in kept["cases"]}
    late = [one for one in after["left_out"] if _id(one) not in done]
    named = {_id(one) for one in late}
    kept["left_out"] = [one for one in kept["left_out"] if _id(one) not in named]
    return {
        **after,
        "cases": kept["cases"] + after["cases"],
        "left_out": kept["left_out"] + late,
        "failed": kept["failed"] + after["failed"],
    }


def _id(one: dict[str, Any]) -> str:
    return one.get("case") or f"{one['family']}/{one['name']}"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    os.replace(new, path)


def text_of(data: dict[str, Any]) -> str:
    """Return the short text: machine, a row a step, what failed, the ratios."""
    machine, gpu = data["machine"], data["machine"]["gpu"]
    lines = [
        f"# {gpu.get('name', 'no GPU')}, {data['date']}",
        "",
        f"Driver {gpu.get('driver_version', '?')}, nvcc {machine['nvcc'] or '?'}, "
        f"compute capability {gpu.get('compute_cap', '?')}, {gpu.get('memory.total', '?')}; "
        f"clocks as found: {gpu.get('clocks.sm', '?')} (at most {gpu.get('clocks.max.sm', '?')}), "
        f"memory {gpu.get('clocks.mem', '?')}; power limit {gpu.get('power.limit', '?')}.",
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}. "
        f"Commit {data['commit']}.",
        *data.get("left_out", []),
        "",
        "| step | result | minutes | |",
        "|---|---|---|---|",
    ]
    for name, step in data["steps"].items():
        minutes = f"{step.get('seconds', 0) / 60:.1f}"
        lines.append(f"| {name} | {step['status']} | {minutes} | {step.get('summary', '')} |")
    for name, step in data["steps"].items():
        if step.get("failures"):
            lines += ["", f"## {name}: what failed", ""]
            lines += [f"- {failure}" for failure in step["failures"]]
    bench = data["steps"].get("bench", {}).get("results", {})
    if bench:
        lines += ["", "## Benchmarks", "", *_bench_lines(bench)]
    return "\n".join(lines) + "\n"


def _bench_lines(bench: dict[str, Any]) -> list[str]:
    limits = bench["limits"].get("before", {})
    lines = [
        "Random normal operands, sides interleaved, medians; a ratio is the fastest peer's time "
        "over ours: above 1, tilegrad is faster. Limits: "
        + ", ".join(f"{name} {value}" for name, value in limits.items())
        + ".",
    ]
    for name, seconds in bench.get("start", {}).items():
        lines.append(f"Start of {name}: {seconds['median']:.3f} s.")
    lines += ["", "| case | ours | fastest peer | its time | ratio | of the copy | |",
              "|---|---|---|---|---|---|---|"]  # fmt: skip
    for case in bench["cases"]:
        lines.append(_row(case))
    if bench.get("left_out"):
        lines += ["", "Left out: " + "; ".join(_named(bench["left_out"])) + "."]
    return lines


def _row(case: dict[str, Any]) -> str:
    times, best = case["seconds"], case["best_peer"]
    ratio = case["ratios"][best]["median"] if best else None
    share = f"{100 * case['share']['median']:.0f} %" if "share" in case else ""
    rate = f"{case['tflops']:.3g} TFLOP/s" if case["family"].startswith("matmul") else ""
    cells = (
        f"{case['family']}/{case['name']}",
        f"{times['tilegrad']['median'] * 1e6:.4g} us",
        best or "",
        f"{times[best]['median'] * 1e6:.4g} us" if best else "",
        f"{ratio:.2f}" if ratio else "",
        share,
        rate,
    )
    return "| " + " | ".join(cells) + " |"


def _named(left_out: list[dict[str, str]]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for one in left_out:
        groups.setdefault(one["why"], []).append(one["case"])
    return [f"{', '.join(cases)} ({why})" for why, cases in groups.items()]
