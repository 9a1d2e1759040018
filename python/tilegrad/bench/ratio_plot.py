# SPDX-License-Identifier: MIT
"""The ratios of a run as a picture."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from typing import Any

from .._files import write_figure
from .canvas import FAINT, GRID, INK, check_matplotlib, hide_frame, new_figure
from .report import (
    EVEN,
    Record,
    counted,
    digits,
    dtypes,
    families,
    geometric_mean,
    peer_names,
    ratio,
)

BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito 2008, as in tilegrad.plot


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
    groups = families(result["cases"])
    if not groups:
        raise ValueError("bench: --plot needs a peer to compare with; got none (see --peers)")
    stacks = _stacks(groups)
    heights = [sum(len(groups[name]) + _HEAD for name in stack) for stack in stacks]
    inch = 0.165  # of a row
    width = 4.9 * len(stacks) + 0.2
    subtitle = _subtitle(result, [r["name"] for rows in groups.values() for r in rows], width)
    head = 0.6 + _LINE * len(subtitle)
    height = inch * max(heights) + head + 0.4
    figure = new_figure(width, height)
    # the medians decide the scale: a disturbed case may have its quartiles cut off
    middles = [(ratio(r) or {})["median"] for records in groups.values() for r in records]
    limits = (min(0.45, 0.8 * min(middles)), max(2.2, 1.25 * max(middles)))
    for column, stack in enumerate(stacks):
        top = height - head
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
    _titles(figure, subtitle, height, width)
    write_figure(path, figure, "bench")
    return figure


_HEAD = 3.0  # rows that a panel's title and scale take
_LINE, _LETTER = 1.5 * 8 / 72, 0.061  # inches of the subtitle: height of a line, width of a letter


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
    axes.axvline(1, color=INK, linewidth=1, zorder=2)
    for i, record in enumerate(records):
        paired = ratio(record) or {}
        low, middle, high = (paired[key] for key in ("low", "median", "high"))
        colour = BLUE if middle >= EVEN else ORANGE
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
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.tick_params(colors=FAINT, length=0, pad=3)
    hide_frame(axes)
    mean = geometric_mean([(ratio(record) or {})["median"] for record in records])
    axes.set_title(family, loc="left", fontsize=9, weight="bold", color=INK, pad=4)
    axes.set_title(f"geomean {digits(mean)}", loc="right", fontsize=7.5, color=FAINT, pad=4)


def _subtitle(result: Record, names: Sequence[str], width: float) -> list[str]:
    """Return the lines below the title, none longer than the figure is wide, in inches."""
    machine, peers = result["machine"], ", ".join(peer_names(result["versions"]))
    conditions = (
        f"{counted(result['threads'], 'thread')}, {dtypes(names)}, {result['cache']} caches"
    )
    lines = (
        "peer's time / ours with quartiles; right of the line tilegrad is faster",
        f"{peers}; {conditions}",
        f"{machine['cpu']}, {machine['isa']}; {result['date'][:10]}",
    )
    most = int((width - 0.4) / _LETTER)
    return [part for line in lines for part in textwrap.wrap(line, most)]


def _titles(figure: Any, subtitle: Sequence[str], height: float, width: float) -> None:
    figure.text(
        0.2 / width, 1 - 0.2 / height, "tilegrad beside the fastest of its peers",
        fontsize=13, weight="bold", color=INK, va="top",
    )  # fmt: skip
    figure.text(
        0.2 / width, 1 - 0.5 / height, "\n".join(subtitle),
        fontsize=8, color=FAINT, va="top", linespacing=1.5,
    )  # fmt: skip
