# SPDX-License-Identifier: MIT
"""Handwritten digits with k-fold cross-validation: how good is this network, and how sure is that?

One split into training and test images is one throw of the dice. Five folds give five throws, and
every image is judged once by a network that has never seen it. (`tg.cross_validate` does it in one
call where the scores alone are wanted; here we look at the mistakes, too.) Takes two seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

import tilegrad as tg
from common import BLUE, GREY, PALE, label, panels, parser, save

FOLDS, EPOCHS = 5, 20


def train(x: Any, y: Any, seed: int, device: str) -> tg.nn.Sequential:
    """Train a new network: nothing may pass from one fold to the next."""
    tg.manual_seed(seed)
    model = tg.nn.Sequential(
        tg.nn.Linear(64, 64, activation="relu"),
        tg.nn.Linear(64, 10),
    ).to(device)
    optimizer = tg.optim.Adam(model.parameters(), lr=3e-3)
    loss_fn = tg.nn.CrossEntropyLoss()
    tg.fit(model, loss_fn, optimizer, (x, y), epochs=EPOCHS, batch_size=32, progress=False)
    return model


def main(argv: Sequence[str] = ()) -> dict[str, Any]:
    """Train once for each fold; print the accuracies and draw who is taken for whom."""
    options = parser(__doc__).parse_args(argv)
    digits = tg.data.load_digits()
    (x_train, y_train), (x_test, y_test) = digits.train(), digits.test()
    # All 1797 images: the folds make the split.
    x, y = np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])

    accuracies = []
    predicted = np.full(len(x), -1)
    # With stratify the folds have the same number of each digit, to within one.
    for k, (rest, held_out) in enumerate(tg.data.k_fold(len(x), FOLDS, stratify=y)):
        model = train(x[rest], y[rest], k, options.device)
        predicted[held_out] = model.predict(x[held_out]).argmax(axis=1)
        accuracies.append(float(np.mean(predicted[held_out] == y[held_out])))
        print(f"fold {k + 1}: {len(rest)} to train on, accuracy {100 * accuracies[-1]:.2f} %")
    # The spread of one fold, not of the mean; n - 1, since the mean comes from the same values.
    mean, spread = float(np.mean(accuracies)), float(np.std(accuracies, ddof=1))
    print(f"mean {100 * mean:.2f} %, spread {100 * spread:.2f} %")

    confusion = tg.confusion_matrix(y, predicted)  # row: what it is; column: what it was taken for
    wrong = confusion - np.diag(confusion.diagonal())
    true, taken = np.unravel_index(wrong.argmax(), wrong.shape)
    print(f"most often: a {true} taken for a {taken}, {wrong.max()} times")

    figure, (left, right) = panels("Digits, five-fold cross-validation", 2, size=(9, 4.6))
    left.imshow(np.sqrt(confusion), cmap="Blues")  # the root, so that single errors show
    for row, column in np.ndindex(10, 10):
        count = confusion[row, column]
        colour = "white" if row == column else "black"
        left.text(column, row, count or "", ha="center", va="center", fontsize=8, color=colour)
    left.set(xticks=range(10), yticks=range(10))
    left.grid(visible=False)
    label(left, f"{len(x)} images, each judged once", "taken for", "digit")
    right.axhspan(100 * (mean - spread), 100 * (mean + spread), color=PALE, linewidth=0)
    right.axhline(100 * mean, color=GREY, linestyle="--", linewidth=1)
    right.plot(range(1, FOLDS + 1), 100 * np.array(accuracies), "o", color=BLUE, markersize=8)
    right.set(ylim=(94, 100), xlim=(0.5, FOLDS + 0.5), xticks=range(1, FOLDS + 1))
    right.grid(visible=False, axis="x")
    label(right, f"Mean {100 * mean:.1f} %, spread {100 * spread:.1f} %", "fold", "accuracy, %")
    save(figure, options.out, "digits_k_fold.png")
    return {"accuracies": accuracies, "mean": mean, "spread": spread, "confusion": confusion}


if __name__ == "__main__":
    main(sys.argv[1:])
