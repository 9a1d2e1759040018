# SPDX-License-Identifier: MIT
"""The training loop of every PyTorch tutorial, and beside it the same in tilegrad, line for line.

Both start from the same weights and see the same batches, so their losses agree to the rounding of
float32. Without PyTorch only tilegrad's half runs. Takes four seconds.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

import tilegrad as tg
from common import BLUE, GREY, ORANGE, label, panels, parser, save

EPOCHS, RATE, MOMENTUM = 20, 0.05, 0.9


def batches() -> tg.data.DataLoader:
    """Return the digits in batches of 32, in an order that depends on seed and epoch alone."""
    x, y = tg.data.load_digits().train()
    return tg.data.DataLoader(x, y, batch_size=32, shuffle=True, seed=0)


def train_tilegrad(weights: dict[str, Any], x_test: Any, device: str) -> tuple[list[float], Any]:
    """Train with tilegrad; return the loss of every batch and the scores of the test images."""
    model = tg.nn.Sequential(tg.nn.Linear(64, 32), tg.nn.ReLU(), tg.nn.Linear(32, 10))
    model.load_state_dict(weights)
    model.to(device)
    loss_fn = tg.nn.CrossEntropyLoss()
    optimizer = tg.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    losses, loader = [], batches()
    for _ in range(EPOCHS):
        for x, y in loader:
            x, y = tg.asarray(x, device=device), tg.asarray(y, device=device)
            optimizer.zero_grad()
            output = model(x)
            loss = loss_fn(output, y)
            model.backward(loss_fn.backward())  # there is no tape: the loss hands its gradient on
            optimizer.step()
            losses.append(float(loss))
    model.eval()
    return losses, model.predict(x_test)


def train_torch(torch: Any, weights: dict[str, Any], x_test: Any) -> tuple[list[float], Any]:
    """Train with PyTorch; the lines are those above."""
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})

    loss_fn = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    losses, loader = [], batches()
    for _ in range(EPOCHS):
        for x, y in loader:
            x, y = torch.from_numpy(x), torch.from_numpy(y)
            optimizer.zero_grad()
            output = model(x)
            loss = loss_fn(output, y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    model.eval()
    return losses, model(torch.from_numpy(x_test)).detach().numpy()


def by_epoch(values: Any) -> Any:
    """Give each epoch a row."""
    return np.reshape(values, (EPOCHS, -1))


def main(argv: Sequence[str] = ()) -> dict[str, Any]:
    """Train both, compare loss by loss and draw the two curves."""
    options = parser(__doc__).parse_args(argv)
    torch = None
    if importlib.util.find_spec("torch"):
        torch = importlib.import_module("torch")
    else:
        print("PyTorch is not installed (pip install torch): tilegrad's half alone")
    x_test, y_test = tg.data.load_digits().test()
    tg.manual_seed(0)
    start = tg.nn.Sequential(tg.nn.Linear(64, 32), tg.nn.ReLU(), tg.nn.Linear(32, 10))
    weights = {name: value.copy() for name, value in start.state_dict().items()}

    losses, scores = train_tilegrad(weights, x_test, options.device)
    accuracy = float(np.mean(scores.argmax(axis=1) == y_test))
    results: dict[str, Any] = {"losses": losses, "accuracy": accuracy, "difference": None}
    print(f"tilegrad  loss {losses[0]:.6f} to {losses[-1]:.6f}, accuracy {100 * accuracy:.2f} %")
    figure, axes = panels("One training loop, written twice", 2 if torch else 1)
    epochs = range(1, EPOCHS + 1)
    label(axes[0], "Mean loss of every epoch", "epoch", "cross-entropy")
    axes[0].plot(
        epochs, by_epoch(losses).mean(axis=1), color=BLUE, linewidth=5, alpha=0.45, label="tilegrad"
    )
    if torch:
        others, other_scores = train_torch(torch, weights, x_test)
        other_accuracy = float(np.mean(other_scores.argmax(axis=1) == y_test))
        differences = np.abs(np.array(losses) - others)
        results["difference"] = float(differences.max())
        results["torch_accuracy"] = other_accuracy
        print(
            f"PyTorch   loss {others[0]:.6f} to {others[-1]:.6f}, "
            f"accuracy {100 * other_accuracy:.2f} %"
        )
        print(f"largest difference of the {len(losses)} losses: {differences.max():.1e}")
        axes[0].plot(
            epochs, by_epoch(others).mean(axis=1), color=ORANGE, linewidth=1.4, label="PyTorch"
        )
        label(axes[1], "Largest difference in an epoch", "epoch", "cross-entropy, millionths")
        axes[1].plot(epochs, 1e6 * by_epoch(differences).max(axis=1), "o-", color=GREY, ms=4)
        axes[1].set_ylim(0)
    for panel in axes:
        panel.set(xticks=range(0, EPOCHS + 1, 5), xlim=(0, EPOCHS + 0.5))
    axes[0].set_yscale("log")
    axes[0].legend(frameon=False, fontsize=9)
    save(figure, options.out, "pytorch_loop.png")
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
