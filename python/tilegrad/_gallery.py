# SPDX-License-Identifier: MIT
"""The galleries: every activation and every loss with its derivative, from our own kernels."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import ops
from ._files import write_figure

Array = NDArray[Any]
Curve = Callable[[Array], Any]

# Okabe and Ito 2008: told apart with every common kind of colour blindness, and in grey.
_VALUE, _SLOPE = "#0072B2", "#D55E00"
_INK, _FAINT, _GRID, _AXIS = "#222222", "#6b6b6b", "#ececec", "#b8b8b8"
_COLUMNS = 5
_POINTS = 801


@dataclass(frozen=True)
class Panel:
    """A function of one number: value(x) and slope(x) are computed by the library's kernels."""

    name: str
    formula: str
    value: Curve
    slope: Curve
    low: float = -4.0
    high: float = 4.0
    bottom: float = -1.25
    top: float = 3.0
    x: str = "x"


def _activation(
    name: str, formula: str, bottom: float = -1.25, top: float = 3.0, **more: Any
) -> Panel:
    forward, backward = getattr(ops, name), getattr(ops, f"{name}_backward")
    shown = f"{name}({', '.join(f'{v}' for v in more.values())})" if more else name
    return Panel(
        shown, formula,
        lambda x: forward(x, **more), lambda x: backward(np.ones_like(x), x, **more),
        bottom=bottom, top=top,
    )  # fmt: skip


def _of_two_classes(name: str, formula: str, bottom: float, top: float) -> Panel:
    """Softmax of (x, 0): its first component and that one's derivative by x."""
    forward, backward = getattr(ops, name), getattr(ops, f"{name}_backward")

    def slope(x: Array) -> Array:
        pair = np.stack([x, np.zeros_like(x)], axis=1)
        pick = np.zeros_like(pair)
        pick[:, 0] = 1
        return np.asarray(backward(pick, pair, 1)[:, 0])

    return Panel(
        f"{name} of (x, 0)", formula,
        lambda x: forward(np.stack([x, np.zeros_like(x)], axis=1), 1)[:, 0], slope,
        bottom=bottom, top=top,
    )  # fmt: skip


def activations() -> list[Panel]:
    """Return a panel for every activation."""
    slope = np.array([0.25])
    return [
        _activation("identity", "$x$", bottom=-2.0),
        _activation("sigmoid", r"$\sigma(x) = 1 / (1 + e^{-x})$", -0.15, 1.15),
        _activation("tanh", r"$\tanh x$", -1.2, 1.2),
        _of_two_classes("softmax", r"$e^x / (e^x + 1) = \sigma(x)$", -0.15, 1.15),
        _of_two_classes("log_softmax", r"$\log \sigma(x)$", -4.0, 1.25),
        _activation("relu", r"$\max(x, 0)$"),
        _activation("leaky_relu", r"$x$, below 0: $0.1\,x$", negative_slope=0.1),
        Panel(
            "prelu", r"$x$, below 0: $w x$, $w$ learned (here 0.25)",
            lambda x: ops.prelu(x, slope),
            lambda x: ops.prelu_backward(np.ones_like(x), x, slope, wrt="input"),
        ),
        _activation("elu", r"$x$, below 0: $e^x - 1$"),
        _activation("selu", r"$1.0507\,x$, below 0: $1.7581\,(e^x - 1)$", -2.0, 3.0),
        _activation("gelu", r"$x\,\Phi(x)$"),
        _activation("gelu", r"$x\,(1 + \tanh u) / 2$", approximate="tanh"),
        _activation("silu", r"$x\,\sigma(x)$"),
        _activation("mish", r"$x\,\tanh(\log(1 + e^x))$"),
        _activation("softplus", r"$\log(1 + e^x)$"),
        _activation("hardtanh", r"$x$ between $-1$ and $1$", -1.3, 1.3),
        _activation("relu6", r"$x$ between 0 and 6", -1.0, 7.0),
        _activation("hardsigmoid", r"$\mathrm{relu6}(x + 3) / 6$", -0.15, 1.15),
        _activation("hardswish", r"$x\,\mathrm{relu6}(x + 3) / 6$"),
    ]  # fmt: skip


def _loss(
    name: str, formula: str, target: float, x: str = "input", low: float = -3.0, high: float = 3.0,
    top: float = 3.0, bottom: float = -2.0, **more: Any,
) -> Panel:  # fmt: skip
    """A loss of one element beside a fixed target, as a function of the input."""
    forward, backward = getattr(ops, name), getattr(ops, f"{name}_backward")

    def against(x: Array) -> tuple[Array, Array]:
        return x, np.full_like(x, target)

    return Panel(
        name, formula,
        lambda x: forward(*against(x), reduction="none", **more),
        lambda x: backward(np.ones_like(x), *against(x), reduction="none", **more),
        low, high, bottom, top, x,
    )  # fmt: skip


def _cross_entropy(smoothing: float, formula: str) -> Panel:
    """Of the logits (x, 0) with the first class as target."""

    def operands(x: Array) -> tuple[Array, Array]:
        return np.stack([x, np.zeros_like(x)], axis=1), np.zeros(x.size, np.int64)

    options: dict[str, Any] = {"reduction": "none", "label_smoothing": smoothing}
    return Panel(
        "cross_entropy" + (f", smoothing {smoothing}" if smoothing else ""), formula,
        lambda x: ops.cross_entropy(*operands(x), **options),
        lambda x: ops.cross_entropy_backward(np.ones_like(x), *operands(x), **options)[:, 0],
        low=-4, bottom=-1.25, top=4.0, x="logit of the class, beside 0",
    )  # fmt: skip


def _ranking() -> Panel:
    def operands(x: Array) -> tuple[Array, Array, Array]:
        return x, np.zeros_like(x), np.ones_like(x)

    options: dict[str, Any] = {"margin": 0.5, "reduction": "none"}
    return Panel(
        "margin_ranking_loss", r"$\max(0, m - t\,(x_1 - x_2))$, $m = 0.5$",
        lambda x: ops.margin_ranking_loss(*operands(x), **options),
        lambda x: ops.margin_ranking_loss_backward(
            np.ones_like(x), *operands(x), **options, wrt="input1"
        ),
        -3, 3, -1.5, 3.5, x="$x_1$, beside $x_2 = 0$ and $t = 1$",
    )  # fmt: skip


def _gaussian(wrt: str, formula: str, low: float, high: float, x: str) -> Panel:
    def operands(x: Array) -> tuple[Array, Array, Array]:
        one, zero = np.ones_like(x), np.zeros_like(x)
        return (x, zero, 0.5 * one) if wrt == "input" else (one, zero, x)

    return Panel(
        "gaussian_nll_loss" + (" by the variance" if wrt == "var" else ""), formula,
        lambda x: ops.gaussian_nll_loss(*operands(x), reduction="none"),
        lambda x: ops.gaussian_nll_loss_backward(
            np.ones_like(x), *operands(x), reduction="none", wrt=wrt
        ),
        low, high, -2.0, 3.0, x=x,
    )  # fmt: skip


def _of_a_row(
    name: str, formula: str, row: Callable[[Array], tuple[Any, ...]], x: str, wrt: str = "input",
    low: float = -3.0, high: float = 3.0, bottom: float = -1.5, top: float = 3.5, **more: Any,
) -> Panel:  # fmt: skip
    """A loss of a row as a function of the first number of one operand of it."""
    forward, backward = getattr(ops, name), getattr(ops, f"{name}_backward")
    return Panel(
        name, formula,
        lambda x: forward(*row(x), reduction="none", **more),
        lambda x: backward(np.ones_like(x), *row(x), reduction="none", wrt=wrt, **more)[:, 0],
        low, high, bottom, top, x,
    )  # fmt: skip


def _beside(x: Array, *others: float) -> Array:
    """Return rows that begin with x and go on with the others."""
    return np.column_stack([x, *(np.full_like(x, other) for other in others)])


def _classes(x: Array) -> tuple[Array, Array]:
    return _beside(x, 0.0), np.zeros(x.size, np.int64)


def _rows() -> list[Panel]:
    def labels(x: Array) -> tuple[Array, Array]:
        return _beside(x, 0.0, 0.5), np.tile([0, -1, -1], (x.size, 1))

    def triplet(x: Array) -> tuple[Array, Array, Array]:
        return _beside(x), _beside(0 * x), _beside(0 * x + 2)

    def angle(x: Array) -> tuple[Array, Array, Array]:
        return _beside(x, 1.0), _beside(0 * x + 1, 0.0), -np.ones_like(x)

    return [
        _of_a_row("nll_loss", "$-x_t$", _classes, "log-probability of the class", low=-4, high=0,
                  top=4.0),
        _of_a_row("multi_margin_loss", r"sum of $\max(0, 1 - x_t + x_c) / C$", _classes,
                  "score of the class, beside 0", top=2.5),
        _of_a_row("multilabel_margin_loss", r"sum of $\max(0, 1 - x_t + x_c) / C$", labels,
                  "score of the label, beside 0 and 0.5", top=3.0),
        _of_a_row("multilabel_soft_margin_loss", r"mean of $\log(1 + e^{\mp x})$",
                  lambda x: (_beside(x, 0.0), _beside(0 * x + 1, 0.0)),
                  "logit of a label, beside 0", top=2.5),
        _of_a_row("triplet_margin_loss", r"$\max(0, m + |a - p| - |a - n|)$", triplet,
                  "anchor, positive 0, negative 2", "anchor", -2.0, 4.0, -0.5, 3.5),
        _of_a_row("cosine_embedding_loss", r"$\max(0, \cos)$ for $t = -1$", angle,
                  "$x$ of $(x, 1)$, beside $(1, 0)$", "input1", bottom=-0.25, top=1.25),
    ]  # fmt: skip


def _ctc() -> Panel:
    """Of two times and two symbols: the target's logit at both, its blank's is 0."""

    def operands(x: Array) -> tuple[Any, ...]:
        pair = np.stack([np.zeros_like(x), x], axis=1)
        logp = ops.log_softmax(np.stack([pair, pair]), 2)
        return logp, np.ones((x.size, 1), np.int64), [2] * x.size, [1] * x.size, 0, "none"

    def slope(x: Array) -> Array:
        logp, *rest = operands(x)
        gradient = ops.ctc_loss_backward(np.ones_like(x), logp, *rest)
        logits = ops.log_softmax_backward(gradient, logp, 2, output=logp)
        return np.asarray(logits[..., 1].sum(axis=0))

    return Panel(
        "ctc_loss", "$-\\log$ of all ways to write the target",
        lambda x: ops.ctc_loss(*operands(x)), slope,
        -4, 4, -1.25, 4.0, x="logit of the symbol at both times",
    )  # fmt: skip


def losses() -> list[Panel]:
    """Return a panel for every loss: a slice through it, along one number of its input."""
    zero = "input, target 0"
    return [
        _loss("mse_loss", r"$(x - t)^2$", 0.0, zero),
        _loss("l1_loss", r"$|x - t|$", 0.0, zero),
        _loss("smooth_l1_loss", r"$(x - t)^2 / 2$, beyond 1: $|x - t| - 1/2$", 0.0, zero),
        _loss("huber_loss", r"$d^2 / 2$, beyond $\delta = 1/2$: $\delta\,(|d| - \delta / 2)$", 0.0,
              zero, delta=0.5),
        _loss("poisson_nll_loss", r"$e^x - t x$", 2.0, "input, target 2", top=4.0),
        _loss("binary_cross_entropy", r"$-t \log x - (1 - t) \log(1 - x)$", 1.0,
              "input, target 1", 0.02, 1.0, 4.0, -5.0),
        _loss("binary_cross_entropy_with_logits", r"the same of $\sigma(x)$", 1.0,
              "input, target 1", top=3.5, bottom=-1.25),
        _cross_entropy(0.0, r"$-\log \mathrm{softmax}(x)_t$"),
        _cross_entropy(0.2, "a fifth of the target for all classes"),
        _loss("kl_div", r"$t\,(\log t - x)$", 0.5, "input, target 0.5", -4.0, 0.0, 2.0, -1.0),
        _gaussian("input", r"$(\log v + (x - t)^2 / v) / 2$, $v = 0.5$", -3, 3, zero),
        _gaussian("var", r"$(\log v + (x - t)^2 / v) / 2$, $x - t = 1$", 0.1, 4, "variance"),
        _ranking(),
        _loss("hinge_embedding_loss", r"$\max(0, 1 - x)$ for $t = -1$", -1.0,
              "input, target $-$1", bottom=-1.5, top=3.5),
        _loss("soft_margin_loss", r"$\log(1 + e^{-t x})$", 1.0, "input, target 1", top=3.5,
              bottom=-1.25),
        *_rows(),
        _ctc(),
    ]  # fmt: skip


def plot_activations(path: str | os.PathLike[str] | None = None) -> Any:
    """Draw every activation with its derivative, as the kernels compute them.

    Args:
        path: Where to write the figure; the ending chooses the format (.png, .svg, .pdf). None
            writes nothing.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.

    Example:
        >>> figure = plot_activations()
        >>> figure.axes[1].get_title(loc="left")
        'sigmoid'
    """
    return draw(activations(), "Activations", path)


def plot_losses(path: str | os.PathLike[str] | None = None) -> Any:
    """Draw every loss with its derivative along one number of its input.

    Args:
        path: Where to write the figure; the ending chooses the format (.png, .svg, .pdf). None
            writes nothing.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.

    Example:
        >>> figure = plot_losses()
        >>> figure.axes[0].get_title(loc="left")
        'mse_loss'
    """
    return draw(losses(), "Losses", path)


def draw(panels: Sequence[Panel], title: str, path: str | os.PathLike[str] | None = None) -> Any:
    """Draw panels as small multiples: the value as a full line, the derivative dashed.

    Args:
        panels: What to draw.
        title: Heading.
        path: Where to write the figure; the ending chooses the format. None writes nothing.

    Returns:
        The `matplotlib.figure.Figure`.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ImportError as error:
        raise ImportError('plot: needs matplotlib; pip install "tilegrad[plot]"') from error
    rows = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(13.5, 0.9 + 2.55 * rows), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    figure.set_layout_engine(
        "constrained", w_pad=0.1, h_pad=0.08, rect=(0, 0, 1, 1 - 0.62 / figure.get_figheight())
    )
    height = figure.get_figheight()
    figure.text(0.012, 1 - 0.2 / height, title, fontsize=15, weight="bold", va="top", color=_INK)
    figure.legend(
        handles=[
            Line2D([], [], color=_VALUE, linewidth=2.2, label="value"),
            Line2D([], [], color=_SLOPE, linewidth=1.6, dashes=(4, 2), label="derivative"),
        ],
        loc="upper right", bbox_to_anchor=(0.995, 1 - 0.08 / height), ncols=2, frameon=False,
        fontsize=11, labelcolor=_INK,
    )  # fmt: skip
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    if path is not None:
        write_figure(path, figure, "plot")
    return figure


def _draw_panel(axes: Any, panel: Panel) -> None:
    x = np.linspace(panel.low, panel.high, _POINTS)
    value, slope = np.asarray(panel.value(x)), np.array(panel.slope(x))
    jumps = np.flatnonzero(np.abs(np.diff(slope)) > 0.05 * (panel.top - panel.bottom))
    slope[jumps] = np.nan  # a step is no steep line
    axes.axhline(0, color=_AXIS, linewidth=0.9, zorder=1)
    if panel.low < 0 < panel.high:
        axes.axvline(0, color=_AXIS, linewidth=0.9, zorder=1)
    axes.plot(x, slope, color=_SLOPE, linewidth=1.6, dashes=(4, 2), zorder=2)
    axes.plot(x, value, color=_VALUE, linewidth=2.2, solid_capstyle="round", zorder=3)
    axes.set_xlim(panel.low, panel.high)
    axes.set_ylim(panel.bottom, panel.top)
    axes.locator_params(axis="x", nbins=5)
    axes.locator_params(axis="y", nbins=5)
    axes.grid(color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.tick_params(colors=_FAINT, labelsize=8, length=0, pad=3)
    axes.set_title(panel.name, loc="left", fontsize=10.5, color=_INK, pad=17)
    axes.annotate(
        panel.formula, (0, 1), xytext=(0, 4), xycoords="axes fraction",
        textcoords="offset points", fontsize=8.5, color=_FAINT,
    )  # fmt: skip
    if panel.x != "x":
        axes.set_xlabel(panel.x, fontsize=8, color=_FAINT, labelpad=2)
