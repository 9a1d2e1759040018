# SPDX-License-Identifier: MIT
"""Polynomial regression: a curve too stiff for the data, one that fits, one that follows the noise.

A polynomial is a layer of one node over powers of x. The error on the points that it was fitted to
falls with every degree; the error on fresh points falls and rises again. Takes two seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

import tilegrad as tg
from common import BLUE, GREY, INK, ORANGE, label, panels, parser, save

DEGREES = range(1, 13)
SHOWN = {1: "Degree 1: under-fitted", 3: "Degree 3: about right", 12: "Degree 12: over-fitted"}
STEPS, RATE, NOISE = 3000, 0.02, 0.25


def points(count: int, seed: int) -> tuple[Any, Any]:
    """Draw noisy points of a sine."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, count)
    return x, (np.sin(3 * x) + rng.normal(0, NOISE, count)).astype(np.float32)[:, None]


def features(x: Any, degree: int) -> Any:
    """Return a column for each degree from 1; the layer's bias is that of degree 0.

    Not x, x^2, x^3 themselves: between -1 and 1 the high powers are so alike that descent takes
    for ever to tell them apart. Chebyshev's T1, T2, T3 span the same polynomials and differ.
    """
    return np.polynomial.chebyshev.chebvander(x, degree)[:, 1:].astype(np.float32)


def fit(x: Any, y: Any, degree: int, device: str) -> tg.nn.Linear:
    """Fit a polynomial to the points, all of them in every step."""
    tg.manual_seed(0)
    model = tg.nn.Linear(degree, 1).to(device)
    optimizer = tg.optim.Adam(model.parameters(), lr=RATE)
    step = tg.TrainStep(model, tg.nn.MSELoss(), optimizer)
    inputs = features(x, degree)
    for _ in range(STEPS):
        step(inputs, y)
    return model


def main(argv: Sequence[str] = ()) -> dict[str, Any]:
    """Fit every degree to 20 points, measure it on 200 fresh ones and draw three of the curves."""
    options = parser(__doc__).parse_args(argv)
    x, y = points(20, seed=3)
    fresh_x, fresh_y = points(200, seed=103)
    grid = np.linspace(-1, 1, 400)
    figure, axes = panels("Polynomials fitted to 20 noisy points", 2, 2)
    train_error, validation_error = [], []
    print("degree  training error  validation error")
    for degree in DEGREES:
        model = fit(x, y, degree, options.device)
        train_error.append(float(tg.mse_loss(model.predict(features(x, degree)), y)))
        fresh = model.predict(features(fresh_x, degree))
        validation_error.append(float(tg.mse_loss(fresh, fresh_y)))
        print(f"{degree:6} {train_error[-1]:15.4f} {validation_error[-1]:17.4f}")
        if degree in SHOWN:
            panel = axes[list(SHOWN).index(degree)]
            panel.plot(grid, np.sin(3 * grid), "--", color=GREY, linewidth=1.2, label="truth")
            panel.plot(grid, model.predict(features(grid, degree)), color=BLUE, linewidth=2)
            panel.scatter(x, y, s=18, color=INK, zorder=3, linewidth=0)
            panel.set(ylim=(-2.2, 2.2), xticks=[-1, -0.5, 0, 0.5, 1])
            label(panel, SHOWN[degree], "x", "y")
    axes[0].legend(["truth", "fitted", "training points"], frameon=False, fontsize=9)

    best = DEGREES[int(np.argmin(validation_error))]
    print(f"the least validation error is that of degree {best}")
    axes[3].plot(DEGREES, train_error, "o-", color=BLUE, markersize=4, label="training")
    axes[3].plot(DEGREES, validation_error, "s-", color=ORANGE, markersize=4, label="validation")
    axes[3].axhline(NOISE**2, color=GREY, linewidth=1, linestyle="--", label="noise alone")
    axes[3].set_yscale("log")
    axes[3].set_xticks(DEGREES)
    axes[3].legend(frameon=False, fontsize=9)
    label(axes[3], "Error by degree", "degree", "mean squared error")
    save(figure, options.out, "polynomial_regression.png")
    return {"train_error": train_error, "validation_error": validation_error, "best": best}


if __name__ == "__main__":
    main(sys.argv[1:])
