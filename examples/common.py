# SPDX-License-Identifier: MIT
"""What the examples share: the options --device and --out, and the look of their pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import tilegrad as tg

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image  # comes with matplotlib
except ImportError as error:
    raise SystemExit('the examples draw pictures: pip install "tilegrad[demo]"') from error

# Okabe and Ito 2008: told apart with every common kind of colour blindness, and in grey.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
INK, GREY, PALE = "#222222", "#6b6b6b", "#e6e6e6"


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of --device and --out; a script may add options of its own."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--device",
        choices=("cpu", "sim", "cuda"),
        default="cpu",
        help="where the network runs (default: cpu)",
    )
    options.add_argument(
        "--out", type=Path, default=Path("runs/examples"), help="folder for the pictures"
    )
    return options


def panels(
    title: str, columns: int, rows: int = 1, *, size: tuple[float, float] | None = None
) -> tuple[Figure, list[Any]]:
    """Return a figure with a heading and its plain axes, row by row; no screen is needed."""
    width, height = size or (4.2 * columns, 3.4 * rows + 0.4)
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.012, ha="left", fontsize=12.5, weight="bold", color=INK)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for one in axes:
        plain(one)
    return figure, axes


def plain(axes: Any) -> None:
    """Leave of the frame only what helps to read values."""
    axes.grid(color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b0b0b0")
    axes.tick_params(which="both", colors=GREY, labelsize=9, length=0, pad=4)


def label(axes: Any, title: str, x: str, y: str) -> None:
    """Name a panel and its axes."""
    axes.set_title(title, loc="left", fontsize=10.5, color=INK)
    axes.set_xlabel(x, fontsize=9.5, color=GREY)
    axes.set_ylabel(y, fontsize=9.5, color=GREY)


def save(figure: Figure, folder: Path, name: str) -> Path:
    """Write a picture and say where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    figure.canvas.draw()
    pixels = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")  # type: ignore[attr-defined]
    pixels.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)  # a third
    print(f"picture   {path}")
    return path


def host(x: Any) -> Any:
    """Return an array of any device as NumPy's."""
    return tg.asarray(x, device="cpu")
