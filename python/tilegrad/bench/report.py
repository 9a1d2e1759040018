# SPDX-License-Identifier: MIT
"""What a run says: a row a case, the best and the worst alike, and what became of each goal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from . import goals
from .environment import CANNOT_BE_HELD

EVEN = 0.97  # a ratio from here up counts as no slower: the noise of a quiet machine
_BUSY = 0.7  # programs that want to run, before the first measurement

Record = dict[str, Any]


def duration(seconds: float) -> str:
    """Return a time with three digits.

    Example:
        >>> duration(0.0123456), duration(4.2e-7)
        ('12.3 ms', '0.42 us')
    """
    unit, size = ("s", 1.0) if seconds >= 1 else ("ms", 1e-3) if seconds >= 1e-3 else ("us", 1e-6)
    return f"{digits(seconds / size)} {unit}"


def digits(value: float) -> str:
    """Return a positive number with three digits, two below 1.

    Example:
        >>> digits(0.4567), digits(1.234), digits(12.34), digits(1234.5)
        ('0.46', '1.23', '12.3', '1234')
    """
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def minutes(seconds: float) -> str:
    """Return a duration for people.

    Example:
        >>> minutes(42), minutes(200)
        ('42 s', '3.3 minutes')
    """
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} minutes"


def ratio(record: Record) -> dict[str, float] | None:
    """Return the ratio to the fastest peer, or None without a peer."""
    best = record["best_peer"]
    found: dict[str, float] | None = record["ratios"][best] if best else None
    return found


def share(record: Record) -> str:
    """Return the share of the machine's limit and its kind."""
    if "share" not in record:
        return "-"
    return f"{100 * record['share']['median']:.0f} % {record['limit']}"


def counted(count: int, noun: str) -> str:
    """Return a number and what it counts.

    Example:
        >>> counted(1, "case"), counted(4, "case")
        ('1 case', '4 cases')
    """
    return f"{count} {noun}{'s' * (count != 1)}"


def dtypes(names: Iterable[str]) -> str:
    """Return the dtypes of cases, which their names tell.

    Example:
        >>> dtypes(["64 NN"]), dtypes(["64 NN bf16"]), dtypes(["64 NN", "64 NN bf16"])
        ('float32', 'bfloat16', 'float32, bfloat16 where the name says bf16')
    """
    found = {name.endswith(" bf16") for name in names}
    if found == {True, False}:
        return "float32, bfloat16 where the name says bf16"
    return "bfloat16" if found == {True} else "float32"


def busy(load: float | None) -> list[str]:
    """Return a warning, if other programs want the processor too.

    Args:
        load: Programs that wanted to run before the first measurement, if the system tells.
    """
    if load is None or load <= _BUSY:
        return []
    return [f"other programs are busy (load {load}): expect wide quartiles, and do not store"]


def heading(result: Record, names: Iterable[str] = ()) -> str:
    """Return the conditions of a run.

    Args:
        result: The run, before its first case.
        names: Of the cases that it will have.
    """
    machine, versions, before = result["machine"], result["versions"], result["limits"]["before"]
    threads = result["threads"]
    cores = result["cores"]
    caches = ", ".join(f"{name} {size}" for name, size in machine["caches"].items())
    where = f"pinned to core {', '.join(map(str, cores))}" if cores else "not pinned"
    sides = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    left_out = result.get("left_out", ())
    missing = [n for n, number in versions.items() if number is None and n not in left_out]
    cache = (
        "hot caches: the same operands again and again"
        if result["cache"] == "hot"
        else "cold caches: 64 MB are written elsewhere before every call"
    )
    lines = [
        f"{machine['cpu']} ({caches or 'caches unknown'}), {machine['system']}, {machine['isa']}",
        f"{sides}, Python {machine['python']}"
        + (f"; not installed: {', '.join(missing)}" if missing else "")
        + (f"; left out: {', '.join(left_out)}" if left_out else ""),
        f"{counted(threads, 'thread')} {where}; {dtypes(names)}, random normal; {cache}",
        f"limits now: {before['fma_gflops']} GFLOP/s multiply-add, "
        f"{before['copy_gbytes']} GB/s copying in memory",
        "ratio: fastest peer's time / ours, median and quartiles; above 1 tilegrad is faster",
    ]
    if held := result.get("held"):
        there = [name for name, number in versions.items() if number and name != "tilegrad"]
        text = f"TILEGRAD_CPU={held}: {', '.join(there)} are held to it too"
        if free := [name for name in CANNOT_BE_HELD if name in left_out]:
            text += f"; {', '.join(free)} cannot be"
        lines.insert(2, text)
    if ceilings := result.get("ceilings"):
        rates = ", ".join(f"{level} {rate:g}" for level, rate in ceilings["copy_gbytes"].items())
        lines.insert(-1, f"copying by level, GB/s read and written: {rates}")
    return "\n".join([*lines, *busy(result["load"][0])])


_WIDTHS = (36, 9, 26, 7, 15, 10)


def columns(family: str) -> str:
    """Return the head of a family's table."""
    return _line((family, "ours", "fastest peer", "ratio", "quartiles", "of limit")) + "  goal"


def row(record: Record, threads: int = 1) -> str:
    """Return a case's row: what was measured, then what became of its goals.

    Args:
        record: The case, as a run stores it.
        threads: Of the run.
    """
    times, best, paired = record["seconds"], record["best_peer"], ratio(record)
    ours = duration(times["tilegrad"]["median"])
    wanted = "; ".join(goal_text(outcome, threads) for outcome in goals.outcomes(record, threads))
    absent = [f"{name} left out: {why}" for name, why in record.get("left_out", {}).items()]
    more = "".join(f"\n    {line}" for line in absent)
    if best is None or paired is None:
        cells = _line((f"  {record['name']}", ours, "none", "", "", share(record)))
        return f"{cells}  {wanted}".rstrip() + more
    cells = _line((
        f"  {record['name']}",
        ours,
        f"{best} {duration(times[best]['median']):>8}",
        digits(paired["median"]),
        f"{digits(paired['low'])} - {digits(paired['high'])}",
        share(record),
    ))  # fmt: skip
    slower = "" if paired["median"] >= EVEN else "  slower"
    return f"{cells}  {wanted}".rstrip() + slower + more


def goal_text(outcome: goals.Outcome, threads: int) -> str:
    """Return a goal and what became of it.

    Args:
        outcome: Of a case.
        threads: Of the run.

    Example:
        >>> goal = goals.Goal("x", "matmul/64 NN", "torch*", 1.3, 1.4)
        >>> goal_text(goals.Outcome(goal, 1.3, 1.25, "torch"), 1)
        '1.3 x torch: 1.25 not reached'
    """
    text = outcome.goal.text(threads)
    if outcome.got is None:
        return f"{text}: {outcome.verdict}"
    got = f"{outcome.got:.2f}" if outcome.got < 9.995 else digits(outcome.got)
    return f"{text}: {got} {outcome.verdict}"


def goal_rows(result: Record) -> list[str]:
    """Return a line for each row of goals: how many were reached, the one farthest from its goal.

    Args:
        result: A run, as its JSON file holds it.
    """
    threads, features = result["threads"], result["machine"].get("features", ())
    lines = [f"{'goals':<34} {'':<12} {'reached':>8}  farthest from its goal"]
    absent, means = [], False
    for row in goals.rows(result["cases"], threads):
        if row.worst is None:
            absent.append(row.name)
            continue
        outcome, case = row.worst
        line = f"{row.name:<34} {row.verdict:<12} {row.reached:>2} of {len(row.measured):<2}"
        line += f"  {case.partition('/')[2]}, {goal_text(outcome, threads)}"
        if row.mean is not None:
            line += f"; mean ratio {row.mean:.2f} of {row.mean_wanted:.2f}"
            means = True
        if row.needs and not any(name.startswith(row.needs) for name in features):
            line += f"; set for a processor with {row.needs.upper()}"
        lines.append(line)
    explained = "reached: how many of the goals whose case and peer were measured; a case can have "
    explained += "several"
    if means:
        explained += "; mean ratio: geometric, of the row's cases, has a goal of its own"
    lines.append(explained)
    return [*lines, *([f"{goals.UNMEASURED}: {'; '.join(absent)}"] if absent else [])]


def _line(cells: Sequence[str]) -> str:
    first, *others = cells
    return f"{first:<{_WIDTHS[0]}}" + "".join(
        f" {cell:>{width}}" for cell, width in zip(others, _WIDTHS[1:], strict=True)
    )


def families(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Group cases that have a peer by family, in the order of their first."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record["best_peer"]:
            groups.setdefault(record["family"], []).append(record)
    return groups


def geometric_mean(values: Sequence[float]) -> float:
    """Return the mean that suits ratios.

    Example:
        >>> geometric_mean([0.5, 2.0])
        1.0
    """
    return math.exp(sum(math.log(value) for value in values) / len(values))


def summary(result: Record) -> str:
    """Return one line a family: the mean, the worst and the best case, how many are slower."""
    groups = families(result["cases"])
    before, after = result["limits"]["before"], result["limits"]["after"]
    drift = ", ".join(f"{name} {before[name]} -> {after[name]}" for name in before)
    lines = [f"{'ratio to the fastest peer':<16} geomean  slower     worst and best"]
    everything: list[float] = []
    for family, records in groups.items():
        ratios = [(ratio(record) or {})["median"] for record in records]
        everything += ratios
        low, high = ratios.index(min(ratios)), ratios.index(max(ratios))
        lines.append(
            f"{family:<25} {digits(geometric_mean(ratios)):>7}  {_slower(ratios):>8}   "
            f"{digits(ratios[low])} {records[low]['name']}; "
            f"{digits(ratios[high])} {records[high]['name']}"
        )
    if len(groups) > 1:
        mean = digits(geometric_mean(everything))
        lines.append(f"{'all':<25} {mean:>7}  {_slower(everything):>8}")
    if not groups:
        lines = ["no peer took part: no ratios"]
    lines.append(f"limits, start -> end of the run: {drift}")
    if "threads" in result:  # the goals are those of the CPU
        lines += ["", *goal_rows(result)]
    return "\n".join(lines)


def _slower(ratios: Sequence[float]) -> str:
    return f"{sum(value < EVEN for value in ratios)} of {len(ratios)}"


def peer_names(versions: Record) -> list[str]:
    """Return the peers that were there, with their versions.

    Example:
        >>> peer_names({"tilegrad": "1", "numpy": "2.4", "torch": None})
        ['NumPy 2.4']
    """
    known = {"numpy": "NumPy", "torch": "PyTorch", "jax": "jax", "onnxruntime": "onnxruntime"}
    return [f"{name} {versions[key]}" for key, name in known.items() if versions.get(key)]
