# SPDX-License-Identifier: MIT
"""What a run on a GPU says: measured beside predicted, every peer, what became of each goal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from . import gpu_goals
from .gpu_model import H200, Chip
from .harness import OURS, Case
from .report import EVEN, counted, digits, duration

Record = dict[str, Any]
PREDICTED = "predictions of a model for an H200: nothing here was measured"
_WIDTHS = (38, 9, 9, 12, 7, 15, 8)
_SHORT = {"torch": "eager", "torch graph": "graph", "torch compile": "compile"}


def columns(family: str) -> str:
    """Return the head of a family's table."""
    head = (family, "ours", "predicted", "x predicted", "ratio", "quartiles", "of limit")
    return _line(head) + "  peers; goals"


def row(record: Record) -> str:
    """Return a case's row."""
    times, best = record["seconds"], record["best_peer"]
    ours, predicted = times[OURS]["median"], record.get("predicted", {}).get("seconds")
    ratio = record["ratios"][best] if best else None
    cells = _line((
        f"  {record['name']}",
        duration(ours),
        duration(predicted) if predicted else "",
        f"{ours / predicted:.2f}" if predicted else "",
        digits(ratio["median"]) if ratio else "",
        f"{digits(ratio['low'])} - {digits(ratio['high'])}" if ratio else "",
        share_text(record),
    ))  # fmt: skip
    peers = ", ".join(
        f"{_SHORT.get(name, name)} {duration(times[name]['median'])}" for name in record["ratios"]
    )
    slower = "slower" if ratio and ratio["median"] < EVEN else ""
    rest = "; ".join(part for part in (peers, slower, gpu_goals.case_text(record)) if part)
    return f"{cells}  {rest}".rstrip()


def share_text(record: Record) -> str:
    """Return the share of the limit that was measured in the same run."""
    if "share" in record:
        return f"{100 * record['share']['median']:.0f} %"
    part = record.get("of_product")
    return f"{100 * part:.0f} %" if part else ""


def of_product(case: Case, tflops: float, limits: dict[str, float]) -> float | None:
    """Return the share of torch's large bf16 product, for products of 16 bits; else None."""
    most = limits.get("torch_bf16_tflops")
    is_product = case.family.startswith(("matmul", "linear"))
    if not most or not is_product or not {"bf16", "f16"} & set(case.name.split()):
        return None
    return round(tflops / most, 3)


def _line(cells: Sequence[str]) -> str:
    first, *others = cells
    return f"{first:<{_WIDTHS[0]}}" + "".join(
        f" {cell:>{width}}" for cell, width in zip(others, _WIDTHS[1:], strict=True)
    )


def predicted(case: Case) -> Record:
    """Return the stored form of a case's prediction; {} without one."""
    if case.predicted is None:
        return {}
    one = case.predicted
    return {
        "seconds": float(f"{one.seconds:.4g}"),
        "bound": one.bound,
        "kernels": one.kernels,
    }


def as_if_measured(case: Case, chip: Chip = H200) -> Record:
    """Return a prediction in the form of a record, to be held to the goals that need no peer."""
    result: Record = {
        "family": case.family, "name": case.name, "bytes": case.bytes, "flops": case.flops,
        "ratios": {}, "best_peer": None, "predicted": predicted(case),
    }  # fmt: skip
    if case.predicted is not None:
        result["seconds"] = {OURS: {"median": case.predicted.seconds}}
        if case.limited:
            share = case.bytes / chip.copy / case.predicted.seconds
            result["share"] = {"median": share}
    return result


def predictions(cases: Iterable[Case], chip: Chip = H200) -> list[str]:
    """Return the model's table: a row a case, then the constants and the goals."""
    lines, family = [PREDICTED], ""
    known = [case for case in cases if case.predicted is not None]
    for case in known:
        assert case.predicted is not None
        one = case.predicted
        if case.family != family:
            family = case.family
            lines += ["", f"{family:<38} {'predicted':>9} {'TFLOP/s':>9} {'GB/s':>8}  bound"]
        rates = f"{case.flops / one.seconds / 1e12:9.3g} {case.bytes / one.seconds / 1e9:8.4g}"
        text = f"{one.bound}: {one.kernels}" if one.kernels else one.bound
        lines.append(f"  {case.name:<36} {duration(one.seconds):>9} {rates}  {text}")
    lines += ["", "constants of the model"]
    lines += [f"  {name:<16} {value:<10.4g} {source}" for name, value, source in chip.constants()]
    records = [as_if_measured(case, chip) for case in known]
    lines += ["", "goals that need no peer, if the predictions held"]
    found = gpu_goals.rows({"cases": records})
    lines += ["  " + one.text() for one in found if one.value is not None]
    return lines


def goal_lines(result: Record) -> list[str]:
    """Return a line for each row of goals of a run."""
    return ["goals (in brackets: stretch)", *("  " + one.text() for one in gpu_goals.rows(result))]


def off_by(result: Record) -> list[str]:
    """Return where the predictions were farthest off, and how far they were on the whole."""
    pairs = [
        (one["seconds"][OURS]["median"] / one["predicted"]["seconds"], gpu_goals.identity(one))
        for one in result["cases"]
        if one.get("predicted")
    ]
    if not pairs:
        return []
    near = sum(0.8 <= ratio <= 1.25 for ratio, _ in pairs)
    worst = sorted(pairs, key=lambda pair: max(pair[0], 1 / pair[0]), reverse=True)[:5]
    text = "; ".join(f"{name} {ratio:.2f}" for ratio, name in worst)
    return [
        f"predictions: {near} of {counted(len(pairs), 'case')} within a quarter; farthest off "
        f"(measured / predicted): {text}"
    ]
