# SPDX-License-Identifier: MIT
"""The tables of docs/performance*.md, as Markdown, from stored results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tilegrad.bench import goals, scaling, scaling_model
from tilegrad.bench.report import digits, duration, geometric_mean, ratio, share

Result = dict[str, Any]


def conditions(result: Result) -> str:
    """Return what sets a run apart from the others: threads, a forced instruction set."""
    threads = f"{result['threads']} thread{'s' * (result['threads'] > 1)}"
    return f"{threads}, {result['held']}" if result.get("held") else threads


def _rows(head: Sequence[str], lines: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """Return a table whose first columns are to the left, the others to the right."""
    rule = "|" + "---|" * left + "---:|" * (len(head) - left)
    return [
        f"| {' | '.join(head)} |",
        rule,
        *(f"| {' | '.join(cells)} |" for cells in lines),
    ]


def goal_rows(results: Sequence[Result], names: Sequence[str]) -> list[str]:
    """Return the rows of goals, each with what every run made of it."""
    runs = [
        {row.name: row for row in goals.rows(result["cases"], result["threads"])}
        for result in results
    ]
    head = ["", "goals", *(conditions(result) for result in results)]
    lines = []
    for name in dict.fromkeys(goal.row for goal in goals.GOALS):
        texts = dict.fromkeys(
            goal.text(threads)
            for threads in sorted({min(result["threads"], 2) for result in results})
            for goal in goals.GOALS
            if goal.row == name and goal.value(threads) is not None
        )
        cells = [_outcome(run[name]) if name in run else "" for run in runs]
        lines.append([name, "; ".join(texts), *cells])
    needs = sorted({goal.needs for goal in goals.GOALS if goal.needs})
    told = all("features" in result["machine"] for result in results)
    had = {feature for result in results for feature in result["machine"].get("features", ())}
    absent = [need for need in needs if not any(feature.startswith(need) for feature in had)]
    notes = [
        "Goal: the time of the named peer, or of the fastest, over tilegrad's; for tiny calls a "
        "time. A cell: how many of the measured cases reached it, then the one farthest from it."
    ]
    if told and absent:
        notes.append(f"The bfloat16 goals are set for a processor with {absent[0].upper()}; this "
                     "one has none.")  # fmt: skip
    return [*_rows(head, lines, left=2), "", *notes]


def _outcome(row: goals.Row) -> str:
    if row.worst is None:
        return goals.UNMEASURED
    outcome, case = row.worst
    text = f"{row.reached} of {len(row.measured)}"
    if row.verdict == goals.REACHED:
        text = f"**{text}**"
    got = outcome.got or 0.0
    wanted = outcome.wanted
    unit = "" if outcome.goal.peer else " us"
    text += f"; {got:.2f}{unit} of {wanted:g}{unit}, {case.partition('/')[2]}"
    if row.mean is not None:
        text += f"; mean {row.mean:.2f} of {row.mean_wanted:.2f}"
    return text


def every_goal(results: Sequence[Result], names: Sequence[str]) -> list[str]:
    """Return every case that has a goal, and what every run made of it; bold where reached."""
    found: dict[tuple[str, str], list[str]] = {}
    for place, result in enumerate(results):
        for record in result["cases"]:
            for outcome in goals.outcomes(record, result["threads"]):
                case = f"{record['family']}/{record['name']}"
                key = (case, outcome.goal.peer)
                cells = found.setdefault(key, [""] * len(results))
                cells[place] = _goal_cell(outcome, _at_peak(record, outcome, result))
    head = ["case", "peer", *(f"{conditions(result)}: got of goal" for result in results)]
    lines = [[case, _peer(peer), *cells] for (case, peer), cells in found.items()]
    notes = (
        "Bold: the goal is reached. FMA: what a kernel at the measured peak of multiply-adds would "
        "get, where that is less than the goal: no kernel of this type can reach it here."
    )
    return [*_rows(head, lines, left=2), "", notes]


def _at_peak(record: Mapping[str, Any], outcome: goals.Outcome, result: Result) -> float | None:
    """Return the ratio of a kernel that does nothing but multiply-adds, if it misses the goal."""
    if outcome.got is None or not outcome.goal.peer or not record["flops"]:
        return None
    if "bf16" in record["name"]:  # tile instructions do more than multiply-adds in registers
        return None
    peak = 1e9 * max(limits["fma_gflops"] for limits in result["limits"].values())
    most = outcome.got * record["seconds"]["tilegrad"]["median"] * peak / record["flops"]
    return most if most < outcome.wanted else None


def _peer(pattern: str) -> str:
    return {"": "(time)", "*": "fastest"}.get(pattern, pattern.rstrip("*"))


def _goal_cell(outcome: goals.Outcome, at_peak: float | None) -> str:
    if outcome.got is None:
        return "-"
    unit = "" if outcome.goal.peer else " us"
    text = f"{outcome.got:.2f}" if outcome.got < 9.995 else digits(outcome.got)
    bold = "**" if outcome.verdict == goals.REACHED else ""
    limit = "" if at_peak is None else f", FMA {at_peak:.2f}"
    return f"{bold}{text}{bold} of {outcome.wanted:g}{unit}{limit}"


def every_case(results: Sequence[Result], names: Sequence[str]) -> list[str]:
    """Return every case of the first run, with the ratios of the others."""
    first, *others = results
    stored = [{f"{r['family']}/{r['name']}": r for r in result["cases"]} for result in others]
    head = ["case", f"tilegrad, {conditions(first)}", "fastest peer", "ratio", "quartiles"]
    head += ["share of the limit", *(f"ratio, {conditions(result)}" for result in others)]
    lines = []
    for record in first["cases"]:
        case, best, paired = f"{record['family']}/{record['name']}", record["best_peer"], None
        ours = duration(record["seconds"]["tilegrad"]["median"])
        cells = [case, ours, "none", "", "", share(record)]
        if (paired := ratio(record)) is not None:
            cells[2] = f"{best} {duration(record['seconds'][best]['median'])}"
            cells[3] = digits(paired["median"])
            cells[4] = f"{digits(paired['low'])} - {digits(paired['high'])}"
        for known in stored:
            more = ratio(known[case]) if case in known else None
            cells.append(digits(more["median"]) if more else "")
        lines.append(cells)
    return _rows(head, lines)


def rooflines(results: Sequence[Result], names: Sequence[str]) -> list[str]:
    """Return the pictures that were drawn beside results; those without limits have none."""
    lines = []
    for result, name in zip(results, names, strict=True):
        if "ceilings" in result:
            picture = f"{name.removesuffix('.json')}-roofline.png"
            lines.append(f"![Roofline, {conditions(result)}]({picture})")
    return lines or ["No run with a roofline is stored yet."]


def scaling_rows(results: Sequence[Result], names: Sequence[str]) -> list[str]:
    """Return the times with one thread and with two of a scaling run, and the efficiency."""
    (result,) = _scaling(results, names)
    lines = []
    families: dict[str, list[float]] = {}
    for record in result["cases"]:
        gain, limit = record["speedup"], record.get("limit_speedup")
        families.setdefault(record["family"], []).append(gain["median"])
        lines.append([
            f"{record['family']}/{record['name']}",
            *(duration(record["seconds"][name]["median"]) for name in ("1 thread", "2 threads")),
            f"{50 * gain['median']:.0f} %",
            f"{50 * gain['low']:.0f} - {50 * gain['high']:.0f} %",
            f"{50 * limit['median']:.0f} % {record['limit']}" if limit else "-",
        ])  # fmt: skip
    head = ["case", "1 thread", "2 threads", "efficiency", "quartiles", "the machine's own"]
    means = "; ".join(
        f"{family} {50 * geometric_mean(gains):.0f} %" for family, gains in families.items()
    )
    return [
        *_rows(head, lines),
        "",
        f"Geometric means by family: {means}. {result['machine']['cpu']}, "
        f"{result['machine']['isa']}; hot caches; {result['date'][:10]}.",
    ]


def model_rows(results: Sequence[Result], names: Sequence[str]) -> list[str]:
    """Return what the model expects of more threads, and what stops each case."""
    (result,) = _scaling(results, names)
    more = scaling_model.MORE_THREADS
    head = ["case", "operations a byte", "joins", "pieces", "serial share"]
    head += [*(f"{count} threads" for count in more), "most is lost to"]
    lines = []
    for record in result["cases"]:
        most = str(more[-1])
        cases = [scaling_model.of_record(record, result, count) for count in more]
        known = [
            scaling_model.speedup(case, count) for case, count in zip(cases, more, strict=True)
        ]
        lines.append([
            f"{record['family']}/{record['name']}",
            digits(record["flops"] / record["bytes"]),
            str(record["joins"][most]),
            f"{record['pieces'][most]:g}" if record["joins"][most] else "-",
            f"{100 * cases[-1].serial:.0f} %" if record["joins"][most] else "not shared",
            *(f"{gain:.1f}" for gain, _ in known),
            known[-1][1],
        ])  # fmt: skip
    return [
        *_rows(head, lines),
        "",
        f"Measured: a join of two threads {1e6 * result['join_seconds']:.2f} us, a call from "
        f"Python {1e6 * result['call_seconds']:.2f} us. Assumed: "
        f"{1e6 * scaling_model.JOIN_MORE:.2f} us more a join for each further thread, "
        f"{scaling_model.SOCKET_GBYTES:.0f} GB/s for all cores together.",
    ]


def _scaling(results: Sequence[Result], names: Sequence[str]) -> Sequence[Result]:
    if len(results) != 1 or results[0].get("kind") != scaling.KIND:
        raise ValueError(f"{' '.join(names)}: must be one run of tilegrad bench cpu --scaling")
    return results
