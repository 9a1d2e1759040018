# SPDX-License-Identifier: MIT
"""Draw training runs and galleries. Needs matplotlib: ``pip install "tilegrad[plot]"``."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ._gallery import plot_activations, plot_losses

__all__ = ["plot_activations", "plot_history", "plot_losses"]

# Okabe and Ito 2008: distinguishable with every common kind of colour blindness, and in grey.
_TRAIN, _VALIDATION = "#0072B2", "#D55E00"
_INK, _FAINT, _GRID = "#222222", "#6b6b6b", "#e6e6e6"


def plot_history(
    history: Any, path: str | os.PathLike[str] | None = None, *, title: str | None = None
) -> Any:
    """Draw loss and accuracy over the epochs, training beside validation.

    The best epoch, that of the lowest validation loss (without validation: training loss), is
    marked. Values that are NaN or infinite leave a gap. Nothing is shown on a screen, and no
    global state of matplotlib is touched.

    Args:
        history: What `fit` returned, or a mapping with its lists: `train_loss` and, where there
            are such, `val_loss`, `train_accuracy`, `val_accuracy` (fractions) and `epochs`.
        path: Where to write the figure; the ending chooses the format (.png, .svg, .pdf).
            None writes nothing.
        title: Heading. Default: "Training". The last figures stand below it.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is no epoch, or a list has another length than `train_loss`.

    Example:
        >>> from tilegrad.plot import plot_history
        >>> figure = plot_history({"train_loss": [2.3, 0.8, 0.5], "val_loss": [1.1, 0.7, 0.6]})
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['Loss']
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plot_history: needs matplotlib; pip install "tilegrad[plot]"') from error

    curves = _curves(history)
    epochs = _epochs(history, len(curves["train_loss"]))
    panels = [("Loss", curves["train_loss"], curves["val_loss"], 1.0)]
    if curves["train_accuracy"] or curves["val_accuracy"]:
        panels.append(("Accuracy, %", curves["train_accuracy"], curves["val_accuracy"], 100.0))
    best = _best(curves["val_loss"] or curves["train_loss"])

    figure = Figure(figsize=(1.2 + 4.4 * len(panels), 4.25), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        left=0.62 / figure.get_figwidth(),
        right=1 - 1.0 / figure.get_figwidth(),
        top=0.7,
        bottom=0.135,
        wspace=0.46,
    )
    for i, (name, train, validation, scale) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), i + 1)
        _panel(axes, epochs, [scale * v for v in train], [scale * v for v in validation], best)
        axes.set_title(name, loc="left", fontsize=11, color=_INK, pad=17)
    left = 0.24 / figure.get_figwidth()
    figure.text(left, 0.95, title or "Training", fontsize=14, weight="bold", va="top", color=_INK)
    figure.text(left, 0.87, _summary(curves, epochs, best), va="top", fontsize=10, color=_FAINT)
    if path is not None:
        figure.savefig(path)
    return figure


def _curves(history: Any) -> dict[str, list[float]]:
    """Take the lists out of a History or a mapping; a list that is absent is empty."""
    curves = {
        name: _floats(_get(history, name))
        for name in ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    }
    count = len(curves["train_loss"])
    if count == 0:
        raise ValueError("plot_history: train_loss must have at least one epoch; got none")
    for name, values in curves.items():
        if len(values) not in (0, count):
            raise ValueError(
                f"plot_history: {name} must have {count} values, as train_loss; got {len(values)}"
            )
    for name in ("val_loss", "train_accuracy", "val_accuracy"):
        if all(math.isnan(value) for value in curves[name]):
            curves[name] = []
    return curves


def _get(history: Any, name: str) -> Sequence[float | None] | None:
    found: Sequence[float | None] | None
    found = history.get(name) if isinstance(history, Mapping) else getattr(history, name, None)
    return found


def _floats(values: Sequence[float | None] | None) -> list[float]:
    """Read None, as JSON has it for NaN, as NaN."""
    return [math.nan if value is None else float(value) for value in values or ()]


def _epochs(history: Any, count: int) -> list[int]:
    given = _get(history, "epochs")
    if isinstance(given, Sequence) and len(given) == count:
        return [int(epoch) for epoch in given if epoch is not None]
    return list(range(1, count + 1))


def _best(losses: list[float]) -> int | None:
    """Return the place of the lowest finite loss."""
    finite = [i for i, loss in enumerate(losses) if math.isfinite(loss)]
    return min(finite, key=lambda i: losses[i]) if finite else None


def _panel(
    axes: Any, epochs: list[int], train: list[float], validation: list[float], best: int | None
) -> None:
    """Draw one panel: two lines with their names at the end, the best epoch as a thin rule."""
    from matplotlib.ticker import MaxNLocator

    lines = [
        (name, colour, _gaps(values))
        for name, colour, values in (
            ("training", _TRAIN, train),
            ("validation", _VALIDATION, validation),
        )
        if values
    ]
    for _, colour, values in lines:
        # A point between two gaps has no line: markers show it, and a single epoch.
        alone = len(epochs) <= 20 or any(math.isnan(v) for v in values)
        axes.plot(
            epochs, values, color=colour, linewidth=2, solid_capstyle="round",
            marker="o" if alone else "", markersize=4, markeredgecolor="white",
            markeredgewidth=0.8, zorder=3, clip_on=False,
        )  # fmt: skip
    if best is not None and len(epochs) > 1:
        axes.axvline(epochs[best], color=_FAINT, linewidth=0.9, linestyle=(0, (3, 3)), zorder=1)
        axes.annotate(
            "best epoch", (epochs[best], 1), xytext=(0, 3),
            xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=8.5,
            color=_FAINT, ha="center", va="bottom",
        )  # fmt: skip
    width = max(epochs[-1] - epochs[0], 1)
    axes.set_xlim(epochs[0] - 0.02 * width, epochs[-1] + 0.02 * width)
    if len(epochs) == 1:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
    if len(epochs) <= 15:
        axes.set_xticks(epochs)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    if not any(math.isfinite(v) for _, _, values in lines for v in values):
        axes.text(
            0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center", color=_FAINT
        )  # fmt: skip
        axes.set_yticks([])
    else:
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.margins(y=0.08)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#b0b0b0")
    axes.tick_params(colors=_FAINT, labelsize=9, length=0, pad=5)
    axes.set_xlabel("epoch", fontsize=10, color=_FAINT)
    _name_lines(axes, epochs, lines)


def _gaps(values: list[float]) -> list[float]:
    return [value if math.isfinite(value) else math.nan for value in values]


def _name_lines(axes: Any, epochs: list[int], lines: list[tuple[str, str, list[float]]]) -> None:
    """Write each line's name behind its last point, apart where they would touch."""
    low, high = axes.get_ylim()
    ends = []
    for name, colour, values in lines:
        shown = [(i, v) for i, v in enumerate(values) if math.isfinite(v)]
        if shown:
            i, value = shown[-1]
            ends.append([(value - low) / (high - low), name, colour, epochs[i]])
    ends.sort()
    apart = 0.065  # of the height of the axes: one line of text
    if len(ends) == 2 and ends[1][0] - ends[0][0] < apart:
        middle = (ends[0][0] + ends[1][0]) / 2
        middle = min(max(middle, apart / 2), 1 - apart / 2)
        ends[0][0], ends[1][0] = middle - apart / 2, middle + apart / 2
    for height, name, colour, epoch in ends:
        axes.annotate(
            name, (epoch, height), xytext=(9, 0), xycoords=("data", "axes fraction"),
            textcoords="offset points", fontsize=10, color=colour, va="center",
            annotation_clip=False,
        )  # fmt: skip


def _summary(curves: dict[str, list[float]], epochs: list[int], best: int | None) -> str:
    """Say the last values in one line."""
    kind = "val" if curves["val_loss"] else "train"
    word = "validation" if kind == "val" else "training"
    parts = [f"{word} loss {curves[f'{kind}_loss'][-1]:.3f}"]
    if curves[f"{kind}_accuracy"]:
        parts.append(f"accuracy {100 * curves[f'{kind}_accuracy'][-1]:.1f} %")
    text = f"After {len(epochs)} epoch{'s' * (len(epochs) != 1)}: {', '.join(parts)}"
    if best is not None and epochs[best] != epochs[-1]:
        text += f"; lowest loss in epoch {epochs[best]}"
    return text
