# SPDX-License-Identifier: MIT
"""Draw how a training run went, how its model errs, and galleries.

Needs matplotlib: ``pip install "tilegrad[plot]"``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ._files import write_figure
from ._gallery import plot_activations, plot_losses

__all__ = ["confusion_matrix", "plot_activations", "plot_history", "plot_losses"]

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
    new_figure = _figures("plot_history")
    curves = _curves(history)
    epochs = _epochs(history, len(curves["train_loss"]))
    panels = [("Loss", curves["train_loss"], curves["val_loss"], 1.0)]
    if curves["train_accuracy"] or curves["val_accuracy"]:
        panels.append(("Accuracy, %", curves["train_accuracy"], curves["val_accuracy"], 100.0))
    best = _best(curves["val_loss"] or curves["train_loss"])

    figure = new_figure(1.2 + 4.4 * len(panels), 4.25)
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
        write_figure(path, figure, "plot_history")
    return figure


def confusion_matrix(
    counts: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    normalize: bool = False,
    class_names: Sequence[str] | None = None,
    title: str | None = None,
) -> Any:
    """Draw how often each class was taken for each.

    A row is a true class, a column a predicted one; the colour is the root of the share of the
    row, so that rare errors show too. Nothing is shown on a screen, and no global state of
    matplotlib is touched.

    Args:
        counts: What `tilegrad.confusion_matrix` returned, `(classes, classes)`.
        path: Where to write the figure; the ending chooses the format (.png, .svg, .pdf).
            None writes nothing.
        normalize: Write the share of the row, in percent, instead of the count.
        class_names: Name of each class; None numbers them.
        title: Heading. Default: "Confusion matrix". The accuracy stands below it.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If counts is no square matrix of numbers from 0 on, or names are missing.

    Example:
        >>> from tilegrad import plot
        >>> figure = plot.confusion_matrix([[8, 2], [1, 9]], class_names=["cat", "dog"])
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['8', '2', '1', '9']
    """
    op = "plot.confusion_matrix"
    new_figure = _figures(op)
    matrix = np.asarray(counts)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"{op}: counts must be a square matrix; got shape {matrix.shape}")
    if not (matrix >= 0).all():
        raise ValueError(f"{op}: counts must be at least 0; got {matrix.min()}")
    classes = len(matrix)
    names = [str(name) for name in (range(classes) if class_names is None else class_names)]
    if len(names) != classes:
        raise ValueError(f"{op}: class_names must be {classes} names; got {len(names)}")
    samples, right = matrix.sum(), matrix.trace()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)

    heading = title or "Confusion matrix"
    cells = max(2.2, 0.48 * min(classes, 20))  # inches, as all lengths here
    longest = 0.08 * max(map(len, names))
    upright = longest > cells / classes
    margin = 0.7 + longest
    figure = new_figure(
        max(cells + margin + 0.3, 0.5 + 0.13 * len(heading)),
        cells + (margin if upright else 0.75) + 0.95,
    )
    width, height = figure.get_size_inches()
    top = (height - 0.95) / height
    axes = figure.add_axes((margin / width, top - cells / height, cells / width, cells / height))
    axes.imshow(np.sqrt(shares), cmap=_one_hue(), vmin=0, vmax=1)
    if classes <= 20:  # beyond, the colours alone are readable
        texts = 100 * shares if normalize else matrix
        for i, j in np.ndindex(matrix.shape):
            text = f"{texts[i, j]:.0f}" if normalize else f"{texts[i, j]}"
            colour = "white" if shares[i, j] > 0.4 else _INK if matrix[i, j] else "#b0b0b0"
            size = 9 if len(text) < 5 else 6.5
            axes.text(j, i, text, ha="center", va="center", fontsize=size, color=colour)
    every = range(0, classes, -(-classes // 40))
    labels = [names[i] for i in every]
    axes.set_xticks(every, labels, rotation=90 if upright else 0)
    axes.set_yticks(every, labels)
    axes.tick_params(colors=_FAINT, labelsize=9, length=0, pad=5)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel("predicted class", fontsize=10, color=_FAINT)
    axes.set_ylabel("true class" + (", % of it" if normalize else ""), fontsize=10, color=_FAINT)
    left = 0.24 / width
    figure.text(left, 1 - 0.2 / height, heading, fontsize=14, weight="bold", va="top", color=_INK)
    summary = f"{right:,} of {samples:,} right: {100 * right / max(samples, 1):.1f} %"
    figure.text(left, 1 - 0.52 / height, summary, va="top", fontsize=10, color=_FAINT)
    if path is not None:
        write_figure(path, figure, "confusion_matrix")
    return figure


def _figures(op: str) -> Callable[[float, float], Any]:
    """Return what makes a figure of some inches, free of matplotlib's global state."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f'{op}: needs matplotlib; pip install "tilegrad[plot]"') from error

    def new_figure(width: float, height: float) -> Any:
        figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
        FigureCanvasAgg(figure)
        return figure

    return new_figure


def _one_hue() -> Any:
    """Return colours from white to the blue of the curves."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("tilegrad", ["#ffffff", "#a9cfe6", _TRAIN])


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
