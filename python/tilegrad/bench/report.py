# SPDX-License-Identifier: MIT
"""What a run says: a row a case, the best and the worst alike, a picture."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import Any

_EVEN = 0.97  # a ratio from here up counts as no slower: the noise of a quiet machine
_BUSY = 0.7  # programs that want to run, before the first measurement
_BLUE, _ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito 2008, as in tilegrad.plot
_INK, _FAINT, _GRID = "#222222", "#6b6b6b", "#e6e6e6"

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


def heading(result: Record) -> str:
    """Return the conditions of a run."""
    machine, versions, before = result["machine"], result["versions"], result["limits"]["before"]
    threads = result["threads"]
    cores = result["cores"]
    caches = ", ".join(f"{name} {size}" for name, size in machine["caches"].items())
    where = f"pinned to core {', '.join(map(str, cores))}" if cores else "not pinned"
    sides = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    missing = [name for name, number in versions.items() if number is None]
    cache = (
        "hot caches: the same operands again and again"
        if result["cache"] == "hot"
        else "cold caches: 64 MB are written elsewhere before every call"
    )
    lines = [
        f"{machine['cpu']} ({caches or 'caches unknown'}), {machine['system']}, {machine['isa']}",
        f"{sides}, Python {machine['python']}"
        + (f"; not installed: {', '.join(missing)}" if missing else ""),
        f"{threads} thread{'s' * (threads > 1)} {where}; float32, random normal; {cache}",
        f"limits now: {before['fma_gflops']} GFLOP/s multiply-add, "
        f"{before['copy_gbytes']} GB/s copying in memory",
        "ratio: fastest peer's time / ours, median and quartiles; above 1 tilegrad is faster",
    ]
    load = result["load"][0]
    if load is not None and load > _BUSY:
        lines.append(
            f"other programs are busy (load {load}): expect wide quartiles, and do not store"
        )
    return "\n".join(lines)


_WIDTHS = (36, 9, 23, 7, 15, 10)


def columns(family: str) -> str:
    """Return the head of a family's table."""
    return _line((family, "ours", "fastest peer", "ratio", "quartiles", "of limit"))


def row(record: Record) -> str:
    """Return a case's row."""
    times, best, paired = record["seconds"], record["best_peer"], ratio(record)
    ours = duration(times["tilegrad"]["median"])
    if best is None or paired is None:
        return _line((f"  {record['name']}", ours, "none", "", "", share(record)))
    return _line((
        f"  {record['name']}",
        ours,
        f"{best} {duration(times[best]['median']):>8}",
        digits(paired["median"]),
        f"{digits(paired['low'])} - {digits(paired['high'])}",
        share(record),
    )) + ("" if paired["median"] >= _EVEN else "  slower")  # fmt: skip


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
        lines = ["no peer is installed: no ratios"]
    return "\n".join([*lines, f"limits, start -> end of the run: {drift}"])


def _slower(ratios: Sequence[float]) -> str:
    return f"{sum(value < _EVEN for value in ratios)} of {len(ratios)}"


def check_matplotlib() -> None:
    """Raise ImportError, with the way out, unless matplotlib is installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError('bench: --plot needs matplotlib; pip install "tilegrad[plot]"') from error


def plot(result: Record, path: str | os.PathLike[str]) -> Any:
    """Draw the ratio of every case with its quartiles, the families in columns of equal height.

    Args:
        result: A run, as its JSON file holds it.
        path: Where to write the figure; the ending chooses the format.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If no case has a peer.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = families(result["cases"])
    if not groups:
        raise ValueError("bench: --plot needs a peer to compare with; got none (install torch)")
    stacks = _stacks(groups)
    heights = [sum(len(groups[name]) + _HEAD for name in stack) for stack in stacks]
    inch = 0.165  # of a row
    width, height = 4.9 * len(stacks) + 0.2, inch * max(heights) + 1.5
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    # the medians decide the scale: a disturbed case may have its quartiles cut off
    middles = [(ratio(r) or {})["median"] for records in groups.values() for r in records]
    limits = (min(0.45, 0.8 * min(middles)), max(2.2, 1.25 * max(middles)))
    for column, stack in enumerate(stacks):
        top = height - 1.1
        for name in stack:
            rows = len(groups[name])
            top -= inch * _HEAD
            box = (
                (4.9 * column + 2.35) / width,
                (top - inch * rows) / height,
                2.1 / width,
                inch * rows / height,
            )
            _panel(figure.add_axes(box), name, groups[name], limits)
            top -= inch * rows
    _titles(figure, result, height, width)
    figure.savefig(path)
    return figure


_HEAD = 3.0  # rows that a panel's title and scale take


def _stacks(groups: dict[str, list[Record]]) -> list[list[str]]:
    """Share the families out over columns so that the tallest is as low as can be."""
    sizes = [len(records) + _HEAD for records in groups.values()]
    names = list(groups)
    count = min(len(names), 3, max(1, round(sum(sizes) / 24)))
    height = max(sizes)
    while True:
        stacks: list[list[str]] = [[]]
        used = 0.0
        for name, size in zip(names, sizes, strict=True):
            if stacks[-1] and used + size > height:
                stacks.append([])
                used = 0.0
            stacks[-1].append(name)
            used += size
        if len(stacks) <= count:
            return stacks
        height += 1


def _panel(axes: Any, family: str, records: Sequence[Record], limits: tuple[float, float]) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    axes.set_xscale("log")
    axes.set_xlim(*limits)
    axes.set_ylim(len(records) - 0.4, -0.6)
    axes.axvline(1, color=_INK, linewidth=1, zorder=2)
    for i, record in enumerate(records):
        paired = ratio(record) or {}
        low, middle, high = (paired[key] for key in ("low", "median", "high"))
        colour = _BLUE if middle >= _EVEN else _ORANGE
        axes.plot([1, middle], [i, i], color=colour, alpha=0.22, linewidth=4.5,
                  solid_capstyle="butt", zorder=1)  # fmt: skip
        axes.plot([low, high], [i, i], color=colour, linewidth=1.4, zorder=3)
        axes.plot([middle], [i], "o", color=colour, markersize=4.2, markeredgecolor="white",
                  markeredgewidth=0.6, zorder=4)  # fmt: skip
        axes.annotate(
            digits(middle), (1, i), xycoords=("axes fraction", "data"), xytext=(6, 0),
            textcoords="offset points", fontsize=7, va="center", color=colour,
        )  # fmt: skip
    axes.set_yticks(range(len(records)), [record["name"] for record in records], fontsize=7)
    base = 2 if limits[1] / limits[0] < 40 else 4
    ticks = [t for t in (base**k for k in range(-10, 11)) if limits[0] <= t <= limits[1]]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticklabels([f"{t:g}" for t in ticks], fontsize=7)
    axes.grid(axis="x", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_FAINT, length=0, pad=3)
    for side in axes.spines.values():
        side.set_visible(False)
    mean = geometric_mean([(ratio(record) or {})["median"] for record in records])
    axes.set_title(family, loc="left", fontsize=9, weight="bold", color=_INK, pad=4)
    axes.set_title(f"geomean {digits(mean)}", loc="right", fontsize=7.5, color=_FAINT, pad=4)


def _titles(figure: Any, result: Record, height: float, width: float) -> None:
    machine, versions = result["machine"], result["versions"]
    threads = result["threads"]
    peers = " and ".join(
        f"{name} {versions[key]}" for key, name in (("numpy", "NumPy"), ("torch", "PyTorch"))
        if versions[key]
    )  # fmt: skip
    figure.text(
        0.2 / width, 1 - 0.2 / height, "tilegrad beside the fastest of its peers",
        fontsize=13, weight="bold", color=_INK, va="top",
    )  # fmt: skip
    figure.text(
        0.2 / width, 1 - 0.5 / height,
        "peer's time / ours with quartiles; right of the line tilegrad is faster\n"
        f"{peers}; {threads} thread{'s' * (threads > 1)}, float32, {result['cache']} caches\n"
        f"{machine['cpu']}, {machine['isa']}; {result['date'][:10]}",
        fontsize=8, color=_FAINT, va="top", linespacing=1.5,
    )  # fmt: skip
