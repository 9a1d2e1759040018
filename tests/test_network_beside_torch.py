# SPDX-License-Identifier: MIT
"""Whole networks trained beside torch from the same weights: after 20 steps they still agree."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import tilegrad as tg
from helpers import Device, host
from tilegrad import nn

STEPS, BATCH, SIZES = 20, 32, (13, 40, 24, 7)
BOUND = {"float32": 1e-5, "float64": 1e-12}
Make = Callable[[Any], Any]

# Activation of ours by name, torch's module.
ACTIVATIONS: dict[str, Callable[[], torch.nn.Module]] = {
    "relu": torch.nn.ReLU,
    "gelu": torch.nn.GELU,
    "gelu_tanh": lambda: torch.nn.GELU("tanh"),
    "silu": torch.nn.SiLU,
    "tanh": torch.nn.Tanh,
}
OPTIMISERS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3},
    "Adam": {"lr": 2e-3, "eps": 1e-4},
    "AdamW": {"lr": 2e-3, "eps": 1e-4, "weight_decay": 0.1},
    "RMSprop": {"lr": 1e-3, "alpha": 0.9, "eps": 1e-2, "momentum": 0.5, "weight_decay": 1e-3},
    "Adagrad": {"lr": 1e-2, "lr_decay": 0.01, "eps": 1e-3, "initial_accumulator_value": 0.01},
}


def networks(
    activation: str, dtype: str, device: Device
) -> tuple[nn.Sequential, torch.nn.Sequential]:
    ours, theirs = [], []
    for i, o in itertools.pairwise(SIZES):
        last = o == SIZES[-1]
        ours.append(nn.Linear(i, o, activation=None if last else activation, dtype=dtype))
        theirs.append(torch.nn.Linear(i, o, dtype=getattr(torch, dtype)))
        if not last:
            theirs.append(ACTIVATIONS[activation]())
    model, twin = nn.Sequential(*ours), torch.nn.Sequential(*theirs)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        q.data = torch.tensor(p.data)
    model.to(device.name)
    return model, twin


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_network_stays_beside_torch(
    activation: str, optimiser: str, loss: str, dtype: str, rng: np.random.Generator,
    device: Device,
) -> None:  # fmt: skip
    tg.manual_seed(3)
    model, twin = networks(activation, dtype, device)
    options = OPTIMISERS[optimiser]
    mine = getattr(tg.optim, optimiser)(model.parameters(), **options)
    its = getattr(torch.optim, optimiser)(twin.parameters(), **options)
    our_loss, their_loss = (
        (nn.CrossEntropyLoss(label_smoothing=0.1), torch.nn.CrossEntropyLoss(label_smoothing=0.1))
        if loss == "cross_entropy"
        else (nn.MSELoss(), torch.nn.MSELoss())
    )
    start = [p.data.copy() for p in model.parameters()]
    for step in range(STEPS if device.name != "sim" else 6):
        n = BATCH if step % 5 else 7
        x = rng.standard_normal((n, SIZES[0])).astype(dtype)
        t: Any = rng.integers(0, SIZES[-1], n)
        if loss == "mse":
            t = rng.standard_normal((n, SIZES[-1])).astype(dtype)
        mine.zero_grad()
        value = our_loss(model(device.put(x)), device.put(t))
        model.backward(our_loss.backward(), input_grad=False)
        mine.step()
        its.zero_grad()
        other = their_loss(twin(torch.tensor(x)), torch.tensor(t))
        other.backward()
        its.step()
        assert float(value) == pytest.approx(other.item(), rel=BOUND[dtype])
    for name, p in model.named_parameters():
        want = twin.get_parameter(_torch_name(name)).detach().numpy()
        error = np.abs(host(p.data) - want).max() / np.abs(want).max()
        assert error <= BOUND[dtype], f"{name} is off by {error:.3g}"
    for a, p in zip(start, model.parameters(), strict=True):
        assert np.abs(host(a) - host(p.data)).max() > 1e-3  # it did move


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("recorded", [False, True])
def test_gradients_accumulate_beside_torch(
    recorded: bool, optimiser: str, dtype: str, rng: np.random.Generator, device: Device
) -> None:
    """Two batches an update, in the long form and as TrainStep(accumulate=2)."""
    tg.manual_seed(3)
    model, twin = networks("tanh", dtype, device)
    mine = getattr(tg.optim, optimiser)(model.parameters(), **OPTIMISERS[optimiser])
    its = getattr(torch.optim, optimiser)(twin.parameters(), **OPTIMISERS[optimiser])
    loss_fn, their_loss = nn.CrossEntropyLoss(), torch.nn.CrossEntropyLoss()
    step = tg.TrainStep(model, loss_fn, mine, accumulate=2)
    for i in range(12):
        x = rng.standard_normal((BATCH, SIZES[0])).astype(dtype)
        t = rng.integers(0, SIZES[-1], BATCH)
        if recorded:
            step(x, t)
        else:
            loss_fn(model(device.put(x)), device.put(t))
            model.backward(loss_fn.backward(), input_grad=False)
        their_loss(twin(torch.tensor(x)), torch.tensor(t)).backward()
        if i % 2:
            if not recorded:
                mine.step()
                mine.zero_grad()
            its.step()
            its.zero_grad()
    assert {int(state["step"]) for state in mine.state.values()} == {6}
    for name, p in model.named_parameters():
        want = twin.get_parameter(_torch_name(name)).detach().numpy()
        error = np.abs(host(p.data) - want).max() / np.abs(want).max()
        assert error <= BOUND[dtype], f"{name} is off by {error:.3g}"


def _torch_name(name: str) -> str:
    layer, _, kind = name.partition(".")
    return f"{2 * int(layer)}.{kind}"  # torch has its activations as modules in between


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_trained_network_predicts_as_torch(
    dtype: str, rng: np.random.Generator, device: Device
) -> None:
    model, twin = networks("gelu", dtype, device)
    x = rng.standard_normal((200 if device.name != "sim" else 40, SIZES[0])).astype(dtype)
    with torch.no_grad():
        want = twin(torch.tensor(x)).numpy()
    bound = {"float32": 2e-6, "float64": 2e-15}[dtype] * np.abs(want).max()
    for batch_size in (None, 1, 33, 200, 1000):
        assert np.abs(model.predict(x, batch_size) - want).max() <= bound
