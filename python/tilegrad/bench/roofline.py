# SPDX-License-Identifier: MIT
"""The roofline of a run: every kernel as a named point below what the machine can do.

Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for
multicore architectures", CACM 52(4), 2009.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .._files import write_figure
from .canvas import FAINT, GRID, INK, check_matplotlib, hide_frame, new_figure
from .report import Record, counted, dtypes

# A point a kernel, at one size of those that were measured; the others are drawn without a name.
POINTS = {
    "matmul/64 NN": "matmul 64",
    "matmul/128 NN": "matmul 128",
    "matmul/1024 NN": "matmul 1024",
    "matmul/1024 TN": "matmul 1024 TN",
    "matmul/4096 NN": "matmul 4096",
    "matmul/4x512x512 NT": "matmul 4x512x512",
    "matmul/8x512x512 NT": "matmul 8x512x512",
    "matmul/64 NN bf16": "matmul 64 bf16",
    "matmul/1024 NN bf16": "matmul 1024 bf16",
    "linear/1x784->512 relu forward": "linear 1x784->512",
    "linear/32x784->512 relu forward": "linear 32x784->512",
    "linear/128x784->512 relu backward": "linear backward 128x784->512",
    "linear/128x512->10 forward": "linear 128x512->10",
    "linear/128x512->10 dx": "linear 512->10, dx",
    "linear/128x512->10 dweight": "linear 512->10, dweight",
    "activation/relu 100000 forward": "relu",
    "activation/relu 100000 backward": "relu backward",
    "activation/sigmoid 100000 forward": "sigmoid",
    "activation/sigmoid 100000 backward": "sigmoid backward",
    "activation/tanh 100000 forward": "tanh",
    "activation/tanh 100000 backward": "tanh backward",
    "activation/gelu 100000 forward": "gelu",
    "activation/gelu 100000 backward": "gelu backward",
    "activation/gelu tanh 100000 forward": "gelu tanh",
    "activation/gelu tanh 100000 backward": "gelu tanh backward",
    "activation/silu 100000 forward": "silu",
    "activation/silu 100000 backward": "silu backward",
    "softmax/softmax 1024x1000@1 forward": "softmax",
    "softmax/softmax 1024x1000@1 backward": "softmax backward",
    "softmax/log_softmax 1024x1000@1 forward": "log_softmax",
    "softmax/log_softmax 1024x1000@1 backward": "log_softmax backward",
    "cross_entropy/128x10 value and grad": "cross-entropy 128x10",
    "cross_entropy/1024x1000 value and grad": "cross-entropy 1024x1000",
    "cross_entropy/4096x32000 value and grad": "cross-entropy 4096x32000",
    "losses/mse_loss 100000": "MSE",
    "losses/nll_loss 1024000": "NLL",
    "losses/triplet_margin_loss 1024000": "triplet margin",
    "optim/SGD 669706": "SGD",
    "optim/SGD momentum 669706": "SGD momentum",
    "optim/Adam 669706": "Adam",
    "optim/AdamW 669706": "AdamW",
    "fused_mlp/64x5 1024 inference": "fused MLP",
    "fused_mlp/64x5 1024 training": "fused MLP training",
    "predict/784-512-512-10 batch 1": "MLP forward, batch 1",
    "predict/784-512-512-10 batch 32": "MLP forward, batch 32",
    "train_step/SGD batch 32": "SGD step, batch 32",
    "train_step/SGD batch 1024": "SGD step, batch 1024",
    "train_step/Adam batch 32": "Adam step, batch 32",
}
# Okabe and Ito 2008, without yellow, which is too faint on white
_LOOKS = {
    "matmul": ("#0072B2", "o"),
    "linear": ("#56B4E9", "s"),
    "fused_mlp": ("#117733", "p"),
    "activation": ("#D55E00", "^"),
    "softmax": ("#CC79A7", "D"),
    "cross_entropy": ("#882255", "v"),
    "losses": ("#E69F00", "<"),
    "optim": ("#009E73", "P"),
    "predict": ("#7570B3", "X"),
    "train_step": ("#000000", "h"),
}
_SIZE = (13.0, 8.6)  # inches
_FONT = 7.0
_GAP = 2.0  # points between labels
_DISTANCES = (5, 9, 14, 20, 27, 36, 46, 58, 72, 90, 110, 135)  # of a label from its point
_DIRECTIONS = 16
_MOST_NAMES = 30  # of a run whose cases all have one
_WIDEST, _HIGHEST = 100.0, 60.0  # least ratio of the ends of the axes: lines stay readable

Box = tuple[float, float, float, float]  # left, bottom, right, top


def intensity(record: Record) -> float:
    """Return the operations a byte of a case.

    Example:
        >>> intensity({"flops": 10.0, "bytes": 4.0})
        2.5
    """
    return float(record["flops"] / record["bytes"])


def gflops(record: Record) -> float:
    """Return what tilegrad did in a second.

    Example:
        >>> gflops({"flops": 3e9, "seconds": {"tilegrad": {"median": 0.5}}})
        6.0
    """
    return float(record["flops"] / record["seconds"]["tilegrad"]["median"] / 1e9)


def attainable(per_byte: float, peak: float, bandwidth: float) -> float:
    """Return the most GFLOP/s at an intensity: the lower of arithmetic and of memory.

    Args:
        per_byte: Operations a byte.
        peak: GFLOP/s of arithmetic.
        bandwidth: GB/s.

    Example:
        >>> attainable(0.5, 200.0, 80.0), attainable(8.0, 200.0, 80.0)
        (40.0, 200.0)
    """
    return min(peak, per_byte * bandwidth)


def named(records: Sequence[Record]) -> dict[str, Record]:
    """Return the cases that get a name, by that name.

    A run of a selection, which leaves room, names all that it has.

    Args:
        records: The cases of a run.
    """
    limited = [record for record in records if "share" in record]
    known = {f"{record['family']}/{record['name']}": record for record in limited}
    found = {label: known[case] for case, label in POINTS.items() if case in known}
    if not found or len(limited) <= _MOST_NAMES:
        usual = [id(record) for record in found.values()]
        found |= {_name(record): record for record in limited if id(record) not in usual}
    return found


def _name(record: Record) -> str:
    family, name = record["family"].replace("_", " "), record["name"]
    return name if name.startswith(family) else f"{family} {name}"


def plot(result: Record, path: str | os.PathLike[str]) -> Any:
    """Draw a run's kernels below the measured limits.

    Args:
        result: A run, as its JSON file holds it.
        path: Where to write the figure; the ending chooses the format.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the run has no case with a limit.
    """
    check_matplotlib("--roofline")
    from matplotlib.ticker import FuncFormatter, NullFormatter

    points = named(result["cases"])
    if not points:
        raise ValueError("bench: --roofline needs a case with a limit; got none (tiny calls alone)")
    figure = new_figure(*_SIZE)
    axes = figure.add_axes((0.06, 0.075, 0.925, 0.81))
    axes.set_xscale("log")
    axes.set_yscale("log")
    peak, rates = result["ceilings"]["fma_gflops"], result["ceilings"]["copy_gbytes"]
    xs = [intensity(record) for record in points.values()]
    ys = [gflops(record) for record in points.values()]
    left, right = 0.6 * min(xs), 2.2 * max(xs)
    wider = max(1.0, math.sqrt(_WIDEST * left / right))
    left, right = left / wider, right * wider
    high = 1.9 * max(peak, *ys)
    low = min(0.5 * min(ys), high / _HIGHEST)
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    taken = _roofs(axes, peak, rates, (left, right, low, high))
    others = [r for r in result["cases"] if "share" in r and r not in points.values()]
    for record in others:
        colour, marker = _LOOKS.get(record["family"], (INK, "o"))
        axes.plot(intensity(record), gflops(record), marker, color=colour, markersize=3,
                  alpha=0.45, markeredgewidth=0, zorder=2)  # fmt: skip
    for record in points.values():
        colour, marker = _LOOKS.get(record["family"], (INK, "o"))
        axes.plot(intensity(record), gflops(record), marker, color=colour, markersize=5.5,
                  markeredgecolor="white", markeredgewidth=0.5, zorder=4)  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("operations a byte (operands read once, results written once)", fontsize=9)
    axes.set_ylabel("GFLOP/s", fontsize=9)
    axes.grid(which="major", color=GRID, linewidth=0.7)
    axes.tick_params(which="both", colors=FAINT, length=0, labelsize=8)
    hide_frame(axes)
    _titles(figure, axes, result, list(points.values()), others)
    names = {
        name: (intensity(record), gflops(record), _LOOKS.get(record["family"], (INK, "o"))[0])
        for name, record in points.items()
    }
    name_points(axes, names, [(x, y) for x, y, _ in names.values()], taken)
    write_figure(path, figure, "bench")
    return figure


def _roofs(
    axes: Any, peak: float, rates: Mapping[str, float], limits: tuple[float, float, float, float]
) -> list[Box]:
    """Draw the limits with their names; return where those are, in pixels."""
    left, right, low, _ = limits
    axes.plot([peak / max(rates.values()), right], [peak, peak], color=INK, linewidth=1.3)
    texts = [axes.annotate(
        f"multiply-add {peak:.0f} GFLOP/s", (right, peak), xytext=(-4, 4),
        textcoords="offset points", fontsize=8, ha="right", color=INK,
    )]  # fmt: skip
    # the angle of y = bandwidth * x on these axes
    (x0, y0), (x1, y1) = axes.transData.transform([(1, 1), (10, 10)])
    angle = math.degrees(math.atan2(y1 - y0, x1 - x0))
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    for level, rate in rates.items():
        start = max(left, low / rate)
        axes.plot([start, peak / rate], [start * rate, peak], color=INK, linewidth=0.9, alpha=0.75)
        lowest = rate == min(rates.values())  # the next line may be close above it
        away = -3 if lowest else 3
        texts.append(axes.annotate(
            f"{level} {rate:.0f} GB/s", (start, start * rate),
            xytext=(14 * cos - away * sin, 14 * sin + away * cos),  # along the line, then off it
            va="top" if lowest else "baseline",
            textcoords="offset points", fontsize=8, color=INK, rotation=angle,
            rotation_mode="anchor",
        ))  # fmt: skip
    renderer = axes.figure.canvas.get_renderer()
    boxes = (text.get_window_extent(renderer) for text in texts)
    return [(box.x0, box.y0, box.x1, box.y1) for box in boxes]


def name_points(
    axes: Any,
    names: Mapping[str, tuple[float, float, str]],
    points: Sequence[tuple[float, float]],
    taken: list[Box],
) -> None:
    """Write names of points where nothing else is, with a line where a name is far from its point.

    Args:
        axes: Of matplotlib, with their limits.
        names: Of each name its point and its colour.
        points: All that are drawn: no name covers one.
        taken: Boxes of other texts in pixels; those of the names are added.
    """
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2, foreground="white")]
    renderer, dpi = axes.figure.canvas.get_renderer(), axes.figure.dpi
    pixel = dpi / 72  # of a point of type
    places = {name: axes.transData.transform((x, y)) for name, (x, y, _) in names.items()}
    marks = [_around(x, y, 4 * pixel) for x, y in axes.transData.transform(points)]
    frame = axes.get_window_extent(renderer)
    inside = (frame.x0, frame.y0, frame.x1, frame.y1)
    crowd = {
        name: sum(math.hypot(x - u, y - v) < 120 for u, v in places.values())
        for name, (x, y) in places.items()
    }
    for name in sorted(places, key=lambda name: -crowd[name]):  # the most crowded choose first
        x, y = places[name]
        colour = names[name][2]
        text = axes.text(0, 0, name, fontsize=_FONT, color=colour, zorder=5)
        extent = text.get_window_extent(renderer)
        size = (extent.width, extent.height)
        text.remove()
        box = place(x, y, size, [*taken, *marks], inside, pixel)
        taken.append(box)
        start = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        far = math.hypot(start[0] - x, start[1] - y) > size[0] / 2 + 14 * pixel or (
            abs(start[1] - y) > 14 * pixel
        )
        axes.annotate(
            name, (x, y), xycoords="figure pixels", xytext=start, textcoords="figure pixels",
            fontsize=_FONT, color=colour, ha="center", va="center", zorder=5,
            path_effects=halo,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.7,
                        "shrinkA": 1, "shrinkB": 3} if far else None,
        )  # fmt: skip


def place(
    x: float, y: float, size: tuple[float, float], taken: Sequence[Box], inside: Box, pixel: float
) -> Box:
    """Return the nearest free box for the name of a point.

    Args:
        x: Of the point.
        y: Of the point.
        size: Width and height of the name.
        taken: Boxes that it must not touch.
        inside: The box that it must not leave.
        pixel: Pixels of a point of type.

    Returns:
        The box; the one that overlaps least where none is free.

    Example:
        >>> place(50, 50, (10, 4), [(46, 46, 54, 54)], (0, 0, 100, 100), 1.0)
        (57.0, 48.0, 67.0, 52.0)
    """
    best, least = None, math.inf
    for box in _candidates(x, y, size, pixel):
        if box[0] < inside[0] or box[1] < inside[1] or box[2] > inside[2] or box[3] > inside[3]:
            continue
        gap = _GAP * pixel / 2
        wide = (box[0] - gap, box[1] - gap, box[2] + gap, box[3] + gap)
        overlap = sum(_overlap(wide, other) for other in taken)
        if overlap < least:
            best, least = box, overlap
        if overlap == 0:
            break
    return best if best is not None else _around(x, y, max(size) / 2)


def _candidates(x: float, y: float, size: tuple[float, float], pixel: float) -> Iterator[Box]:
    """Yield boxes around a point, the nearest first, to the right first."""
    width, height = size
    for distance in _DISTANCES:
        for k in range(_DIRECTIONS):
            # right, left, then in turn above and below
            angle = 2 * math.pi * ((k + 1) // 2 * (-1) ** k) / _DIRECTIONS
            if k == 1:
                angle = math.pi
            cos, sin = math.cos(angle), math.sin(angle)
            middle = (
                x
                + cos * (distance + 2) * pixel
                + (width / 2) * (abs(cos) > 0.3) * (cos / abs(cos)),
                y + sin * distance * pixel + (height / 2) * sin,
            )
            yield (
                round(middle[0] - width / 2, 3), round(middle[1] - height / 2, 3),
                round(middle[0] + width / 2, 3), round(middle[1] + height / 2, 3),
            )  # fmt: skip


def _around(x: float, y: float, half: float) -> Box:
    return (x - half, y - half, x + half, y + half)


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def _titles(
    figure: Any, axes: Any, result: Record, shown: Sequence[Record], others: Sequence[Record]
) -> None:
    from matplotlib.lines import Line2D

    machine, families = result["machine"], {record["family"] for record in shown}
    threads = counted(result["threads"], "thread")
    kinds = dtypes(record["name"] for record in [*shown, *others])
    figure.text(0.012, 0.985, "tilegrad below the limits of the machine", fontsize=13,
                weight="bold", color=INK, va="top")  # fmt: skip
    figure.text(
        0.012, 0.952,
        f"{machine['cpu']}, {machine['isa']}; {threads}, {kinds}, {result['cache']} caches; "
        f"{result['date'][:10]}. Lines: multiply-adds in registers, and copying of arrays\nin "
        "each cache and in memory (GB/s, read and written), measured in the same run. A kernel "
        "that reads more than it writes can pass a line." + " Small points: other sizes." * bool(
            others
        ),
        fontsize=8, color=FAINT, va="top", linespacing=1.5,
    )  # fmt: skip
    handles = [
        Line2D([], [], linestyle="", marker=marker, color=colour, markersize=5.5,
               label=family.replace("_", " "))
        for family, (colour, marker) in _LOOKS.items()
        if family in families
    ]  # fmt: skip
    axes.legend(handles=handles, loc="lower right", fontsize=8, frameon=False)
