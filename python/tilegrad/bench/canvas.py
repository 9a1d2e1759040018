# SPDX-License-Identifier: MIT
"""What the pictures of a run share: colours, an empty figure, axes without a frame."""

from __future__ import annotations

from typing import Any

INK, FAINT, GRID = "#222222", "#6b6b6b", "#e6e6e6"


def check_matplotlib(option: str = "--plot") -> None:
    """Raise ImportError, with the way out, unless matplotlib is installed.

    Args:
        option: What needs it.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'bench: {option} needs matplotlib; pip install "tilegrad[plot]"'
        ) from error


def kinds() -> list[str]:
    """Return the endings of the files that can be drawn; needs matplotlib."""
    from matplotlib.backend_bases import FigureCanvasBase

    return sorted(FigureCanvasBase.get_supported_filetypes())


def new_figure(width: float, height: float) -> Any:
    """Return an empty `matplotlib.figure.Figure`, drawn by Agg; needs matplotlib.

    Args:
        width: In inches.
        height: In inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def hide_frame(axes: Any) -> None:
    """Leave the data and its grid, behind it.

    Args:
        axes: `matplotlib.axes.Axes`.
    """
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
