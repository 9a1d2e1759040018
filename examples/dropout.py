# SPDX-License-Identifier: MIT
"""Dropout against over-fitting: 301,066 weights, and only 200 digits to learn them from.

Weight decay, the other usual remedy, stands beside. Some labels are wrong, as they are in real
collections: a network that has learned those by heart has learned too much. Three seeds each, so
that luck shows. Takes five seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

import tilegrad as tg
from common import BLUE, INK, ORANGE, label, panels, parser, save

SAMPLES, WRONG, WIDTH, SEEDS = 200, 0.15, 512, (0, 1, 2)
WAYS = {  # name: probability of dropout, weight decay
    "nothing": (0.0, 0.0),
    "dropout": (0.5, 0.0),
    "weight decay": (0.0, 1.0),
}


def few_digits(seed: int) -> tuple[Any, Any]:
    """Pick a few digits and give some of them another label, drawn at random."""
    rng = np.random.default_rng(seed)
    x, y = tg.data.load_digits().train()
    rows = rng.permutation(len(x))[:SAMPLES]
    labels = y[rows]
    wrong = rng.random(SAMPLES) < WRONG
    labels[wrong] = rng.integers(0, 10, np.count_nonzero(wrong))
    return x[rows], labels


def train(way: str, seed: int, epochs: int, device: str) -> dict[str, Any]:
    """Train one network; measure both losses after every epoch."""
    probability, decay = WAYS[way]
    x, y = few_digits(seed)
    fresh_x, fresh_y = tg.data.load_digits().test()  # these labels are right
    tg.manual_seed(seed)
    model = tg.nn.Sequential(
        tg.nn.Linear(64, WIDTH, activation="relu"),
        tg.nn.Dropout(probability),
        tg.nn.Linear(WIDTH, WIDTH, activation="relu"),
        tg.nn.Dropout(probability),
        tg.nn.Linear(WIDTH, 10),
    ).to(device)
    optimizer = tg.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=decay)
    step = tg.TrainStep(model, tg.nn.CrossEntropyLoss(), optimizer)
    batches = tg.data.DataLoader(x, y, batch_size=32, shuffle=True, seed=seed)
    losses: list[tuple[float, float]] = []
    for _ in range(epochs):
        for batch in batches:
            step(*batch)  # in training mode: dropout drops
        # predict works in eval mode: every node takes part.
        logits = model.predict(fresh_x)
        seen = tg.cross_entropy(model.predict(x), y)
        losses.append((float(seen), float(tg.cross_entropy(logits, fresh_y))))
    accuracy = float(np.mean(logits.argmax(axis=1) == fresh_y))
    return {"losses": np.array(losses), "accuracy": accuracy}


def main(argv: Sequence[str] = ()) -> dict[str, Any]:
    """Train every way with every seed, print how far the two losses part and draw them."""
    known = parser(__doc__)
    known.add_argument("--epochs", type=int, default=60)
    options = known.parse_args(argv)
    title = (
        f"A network too large for {SAMPLES} digits, {100 * WRONG:.0f} % of them labelled at random"
    )
    figure, axes = panels(title, len(WAYS), size=(10, 3.8))
    results: dict[str, Any] = {}
    print(f"after {options.epochs} epochs     training loss  validation loss      gap  accuracy")
    for panel, way in zip(axes, WAYS, strict=True):
        runs = [train(way, seed, options.epochs, options.device) for seed in SEEDS]
        results[way] = runs
        for seed, run in zip(SEEDS, runs, strict=True):
            seen, fresh = run["losses"][-1]
            print(
                f"  {way:12} seed {seed} {seen:10.3f} {fresh:16.3f} {fresh - seen:10.3f}"
                f"{100 * run['accuracy']:8.1f} %"
            )
            epochs = range(1, options.epochs + 1)
            panel.plot(epochs, run["losses"][:, 0], color=BLUE, linewidth=1.4)
            panel.plot(epochs, run["losses"][:, 1], color=ORANGE, linewidth=1.4)
        gaps = [run["losses"][-1, 1] - run["losses"][-1, 0] for run in runs]
        print(f"  {way:12} gap {np.mean(gaps):.3f}, spread {np.std(gaps, ddof=1):.3f}")
        label(panel, f"Against over-fitting: {way}", "epoch", "cross-entropy")
        panel.set_ylim(0, 1.5)
        words = f"gap at the end {np.mean(gaps):.2f} ± {np.std(gaps, ddof=1):.2f}"
        panel.text(0.97, 0.95, words, transform=panel.transAxes, ha="right", va="top", color=INK)
    axes[0].legend(["training", "validation"], frameon=False, fontsize=9, loc=(0.55, 0.72))
    save(figure, options.out, "dropout.png")
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
