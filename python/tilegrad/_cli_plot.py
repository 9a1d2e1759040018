# SPDX-License-Identifier: MIT
"""``tilegrad plot``: the galleries of activations and losses."""

from __future__ import annotations

import argparse

GALLERIES = ("activations", "losses")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("gallery", choices=GALLERIES, help="what to draw")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="picture to write; the ending chooses the format: .png, .svg or .pdf (default: "
        "<gallery>.png)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw a gallery and say where it is."""
    from . import plot

    draw = plot.plot_activations if args.gallery == "activations" else plot.plot_losses
    path = args.out or f"{args.gallery}.png"
    figure = draw(path)
    shown = sum(axes.get_visible() for axes in figure.axes)
    print(
        f"{path}: {shown} {args.gallery}, value and derivative of each as its kernels compute them"
    )
    return 0
