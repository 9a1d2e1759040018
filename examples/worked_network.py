# SPDX-License-Identifier: MIT
"""A network of six nodes, worked out in full: forward pass, chain rule, two ways to descend.

Two inputs, three hidden nodes with a sigmoid, one output and the squared error: small enough to
follow on paper. The numbers that paper gives are printed beside tilegrad's. Takes a second.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

import tilegrad as tg
from common import BLUE, GREY, ORANGE, host, label, panels, parser, save

X, Y = np.array([[1, 1]], np.float32), np.array([[0]], np.float32)  # one sample, target 0
NAMES = ["w11", "w12", "w21", "w22", "w31", "w32", "b1", "b2", "b3", "v1", "v2", "v3", "c"]
START = {  # weight: a row for each node that receives, a column for each that sends
    "0.weight": [[-0.0053, 0.3793], [-0.5820, -0.5204], [-0.2723, 0.1896]],
    "0.bias": [-0.0140, 0.5607, -0.0628],
    "1.weight": [[0.1528, -0.1745, -0.1135]],
    "1.bias": [-0.5516],
}
# Where a hundred epochs of finite differences lead, in the order of NAMES.
END = [0.01424004, 0.39883757, -0.5907864, -0.52918637, -0.27549535, 0.18640439,
       0.00554004, 0.5519136, -0.06599568, 0.3475135, -0.05529078, 0.03760847,
       -0.22443289]  # fmt: skip
STEP, RATE, EPOCHS = np.float32(1e-4), np.float32(0.01), 100


def forward_pass(device: str) -> dict[str, Any]:
    """Send the sample through a network without biases: sums, sigmoid, sum, squared error."""
    x, y = tg.asarray(X, device=device), tg.asarray(Y, device=device)
    w = tg.asarray(np.array([[0.8, 0.2], [0.4, 0.9], [0.3, 0.5]], np.float32), device=device)
    v = tg.asarray(np.array([[0.3, 0.5, 0.9]], np.float32), device=device)
    hidden, sums = tg.linear(x, w, activation="sigmoid", save_preactivation=True)
    output = tg.linear(hidden, v)
    error = tg.mse_loss(output, y)
    rows = [
        ("sums", host(sums)[0], [1, 1.3, 0.8]),
        ("hidden nodes", host(hidden)[0], [0.731059, 0.785835, 0.689974]),
        ("output", host(output)[0], [1.233212]),
        ("squared error", [float(error)], [1.520812]),
    ]
    print(f"{'forward pass':18}{'tilegrad':27} on paper")
    for name, *both in rows:
        ours, paper = ("".join(f"{value:9.6f}" for value in values) for values in both)
        print(f"  {name:14} {ours:27} {paper}")
    print()
    return {"hidden": host(hidden)[0], "output": host(output).item(), "error": float(error)}


def network(device: str) -> tg.nn.Sequential:
    """Build the network with the weights from which both descents start."""
    model = tg.nn.Sequential(tg.nn.Linear(2, 3, activation="sigmoid"), tg.nn.Linear(3, 1))
    model.load_state_dict({name: np.array(v, np.float32) for name, v in START.items()})
    model.to(device)
    return model


def loss_of(model: tg.nn.Sequential) -> Any:
    """Return the squared error."""
    return tg.mse_loss(model.predict(X), Y)


def finite_differences(model: tg.nn.Sequential) -> list[Any]:
    """Move one weight at a time by a small step: by how much does the loss change per step?"""
    loss, gradients = loss_of(model), []
    for p in model.parameters():
        values = host(p.data).copy()
        gradient = np.zeros_like(values)
        for i in np.ndindex(values.shape):
            moved = values.copy()
            moved[i] += STEP
            p.data = moved
            gradient[i] = (loss_of(model) - loss) / STEP
        p.data = values
        gradients.append(gradient)
    return gradients


def back_propagation(model: tg.nn.Sequential, device: str) -> float:
    """Get all gradients at once: one pass forward, one pass back. Return the loss."""
    loss_fn = tg.nn.MSELoss()
    loss = loss_fn(model(tg.asarray(X, device=device)), tg.asarray(Y, device=device))
    model.backward(loss_fn.backward())  # fills p.grad of every parameter
    return float(loss)


def chain_rule(model: tg.nn.Sequential) -> list[Any]:
    """Write the same down link by link, from the loss back to each weight."""
    w, b, v, c = (host(p.data) for p in model.parameters())
    hidden = 1 / (1 + np.exp(-(X @ w.T + b)))
    output = hidden @ v.T + c
    d_output = -2 * (Y - output)  # the loss is (y - output)^2
    d_sums = d_output * v * hidden * (1 - hidden)  # the slope of a sigmoid is a (1 - a)
    return [d_sums.T @ X, d_sums[0], d_output @ hidden, d_output[0]]


def descend_by_steps(device: str) -> tuple[tg.nn.Sequential, list[float]]:
    """Go downhill with finite differences: 14 forward passes for each epoch."""
    model, losses = network(device), []
    for _ in range(EPOCHS):
        losses.append(float(loss_of(model)))
        for p, gradient in zip(model.parameters(), finite_differences(model), strict=True):
            p.data = host(p.data) - RATE * gradient
    return model, losses


def descend_by_backward(device: str) -> tuple[tg.nn.Sequential, list[float]]:
    """Go downhill with back-propagation, as every network is trained."""
    model, losses = network(device), []
    optimizer = tg.optim.SGD(model.parameters(), lr=float(RATE))
    for _ in range(EPOCHS):
        optimizer.zero_grad()
        losses.append(back_propagation(model, device))
        optimizer.step()
    return model, losses


def flat(arrays: Any) -> Any:
    """Lay all values in one row, in the order of NAMES."""
    return np.concatenate([host(a).ravel() for a in arrays])


def main(argv: Sequence[str] = ()) -> dict[str, Any]:
    """Work everything out, print it beside the known numbers and draw the two descents."""
    options = parser(__doc__).parse_args(argv)
    device = options.device
    forward = forward_pass(device)

    model = network(device)
    back_propagation(model, device)
    gradients = {
        "by hand": flat(chain_rule(model)),
        "backward": flat(p.grad for p in model.parameters()),
        "differences": flat(finite_differences(model)),
    }
    print("gradient   " + "".join(f"{title:>12}" for title in gradients))
    for i, name in enumerate(NAMES):
        print(f"  {name:9}" + "".join(f"{g[i]:12.6f}" for g in gradients.values()))

    by_steps, losses = descend_by_steps(device)
    by_backward, losses_backward = descend_by_backward(device)
    ends, ends_backward = (flat(p.data for p in m.parameters()) for m in (by_steps, by_backward))
    prediction = by_steps.predict(X).item()
    rows = [
        ("first loss", losses[0], losses_backward[0], 0.334550),
        (f"loss of epoch {EPOCHS}", losses[-1], losses_backward[-1], 0.000327707),
        ("prediction", prediction, by_backward.predict(X).item(), -0.0174781),
        *zip(NAMES, ends, ends_backward, END, strict=True),
    ]
    print(f"\n{f'{EPOCHS} epochs':18} differences    backward    expected")
    for name, *values in rows:
        print(f"  {name:16}" + "".join(f"{value:12.6f}" for value in values))

    figure, (left, right) = panels("A network of six nodes, trained in two ways", 2)
    label(left, "Loss of every epoch", "epoch", "squared error")
    left.plot(range(1, EPOCHS + 1), losses, color=BLUE, linewidth=4, alpha=0.45)
    left.plot(range(1, EPOCHS + 1), losses_backward, color=ORANGE, linewidth=1.4)
    left.set_yscale("log")
    left.legend(["finite differences", "back-propagation"], frameon=False, fontsize=9)
    label(right, "Gradient before the first epoch", "", "change of the loss per unit")
    right.bar(NAMES, gradients["differences"], color=BLUE, alpha=0.45, label="finite differences")
    right.plot(NAMES, gradients["backward"], "o", color=ORANGE, ms=5, label="back-propagation")
    right.axhline(0, color=GREY, linewidth=0.8)
    right.tick_params(axis="x", labelsize=7.5)
    right.grid(visible=False, axis="x")
    right.legend(frameon=False, fontsize=9)
    save(figure, options.out, "worked_network.png")
    return {
        "forward": forward,
        "gradients": gradients,
        "losses": (losses, losses_backward),
        "weights": (ends, ends_backward),
        "prediction": prediction,
        "expected": END,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
