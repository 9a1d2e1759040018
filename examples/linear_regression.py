# SPDX-License-Identifier: MIT
"""Linear regression, single and multiple, by gradient descent; the exact solution beside it.

A layer of one node without an activation is a straight line, or a plane. The prices of flats are
made up from known numbers plus noise, so that we see what descent finds again. Takes a second.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

import tilegrad as tg
from common import BLUE, GREEN, GREY, ORANGE, host, label, panels, parser, save

FEATURES = ["size, m²", "age, years", "distance, km"]
LOW, HIGH = np.array([30, 0, 0.5]), np.array([140, 60, 15])
TRUE_SLOPES, TRUE_START = np.array([3.0, -1.2, -8.0]), 120.0  # in thousands: per unit; at zero
RATE, SETTLED, LIMIT = 0.1, 1e-4, 1000


def flats(count: int) -> tuple[Any, Any]:
    """Make up flats and their prices in thousands; the noise is what no feature explains."""
    rng = np.random.default_rng(0)
    x = rng.uniform(LOW, HIGH, (count, 3))
    y = TRUE_START + x @ TRUE_SLOPES + rng.normal(0, 15, count)
    return x, y[:, None]


def descend(x: Any, y: Any, device: str) -> tuple[Any, float, list[float]]:
    """Fit y = x w + b by gradient descent until no weight moves any more."""
    # Metres and years differ in size, and with them the gradients: what suits one weight lets
    # another run away. Standardised, every feature has mean 0 and spread 1.
    mean, spread = x.mean(axis=0), x.std(axis=0)
    inputs, targets = ((x - mean) / spread).astype(np.float32), y.astype(np.float32)
    tg.manual_seed(0)
    model = tg.nn.Linear(x.shape[1], 1).to(device)
    # One call: forward, loss, backward, update.
    step = tg.TrainStep(model, tg.nn.MSELoss(), tg.optim.SGD(model.parameters(), lr=RATE))
    losses: list[float] = []
    change = np.inf
    while change > SETTLED and len(losses) < LIMIT:
        before = [host(p.data).copy() for p in model.parameters()]
        losses.append(float(step(inputs, targets)))
        after = [host(p.data) for p in model.parameters()]
        change = max(np.abs(a - b).max() for a, b in zip(after, before, strict=True))
    # Back to prices per metre, year and kilometre.
    weight, bias = (host(p.data) for p in model.parameters())
    slopes = weight[0] / spread
    return slopes, (bias - slopes @ mean).item(), losses


def closed_form(x: Any, y: Any) -> tuple[Any, float, float]:
    """Solve the least-squares problem exactly; a column of ones makes the constant a weight."""
    ones = np.ones((len(x), 1))
    solution, residual, *_ = np.linalg.lstsq(np.hstack([x, ones]), y, rcond=None)
    return solution[:-1, 0], solution[-1, 0], residual.item() / len(x)


def main(argv: Sequence[str] = ()) -> dict[str, Any]:
    """Fit a line to the size alone and a plane to all features; draw both."""
    options = parser(__doc__).parse_args(argv)
    results: dict[str, Any] = {}
    figure, (left, right) = panels("Linear regression by gradient descent", 2)
    all_x, y = flats(200)
    for name, features, colour in (("single", 1, BLUE), ("multiple", 3, GREEN)):
        x = all_x[:, :features]
        slopes, start, losses = descend(x, y, options.device)
        exact, exact_start, floor = closed_form(x, y)
        # What is left out counts with its mean; its spread is more noise.
        rest = ((LOW + HIGH) / 2 * TRUE_SLOPES)[features:].sum()
        results[name] = {
            "descent": np.append(slopes, start),
            "exact": np.append(exact, exact_start),
            "truth": np.append(TRUE_SLOPES[:features], TRUE_START + rest),
            "losses": losses,
            "floor": floor,
        }
        print(f"{name} regression, settled after {len(losses)} steps")
        print(f"  {'thousands per':16}   descent     exact     truth")
        rows = (results[name][kind] for kind in ("descent", "exact", "truth"))
        for feature, *values in zip([*FEATURES[:features], "constant"], *rows, strict=True):
            print(f"  {feature:16}" + "".join(f"{value:10.3f}" for value in values))
        print(f"  mean squared error {losses[-1]:.2f}, least possible {floor:.2f}\n")

        right.plot(range(1, len(losses) + 1), losses, color=colour, linewidth=2, label=name)
        right.axhline(floor, color=colour, linewidth=1, linestyle="--")
        if features == 1:
            left.scatter(x, y, s=12, color=GREY, alpha=0.5, linewidth=0)
            ends = np.array([x.min(), x.max()])
            left.plot(ends, slopes * ends + start, color=BLUE, linewidth=4, alpha=0.5)
            left.plot(ends, exact * ends + exact_start, "--", color=ORANGE, linewidth=1.4)
            left.legend(["flats", "gradient descent", "exact solution"], frameon=False, fontsize=9)
    label(left, "Single: price by size alone", "size, m²", "price, thousands")
    label(right, "Loss of every step; dashed: exact solution", "step", "mean squared error")
    right.legend(title="regression", frameon=False, fontsize=9)
    right.set_yscale("log")
    save(figure, options.out, "linear_regression.png")
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
