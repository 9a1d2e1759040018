# SPDX-License-Identifier: MIT
"""Modes on every device: train and eval, gradients that add up, no gradient work in eval mode."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import tilegrad as tg
from helpers import Device, assert_close, assert_same_bits, host, tolerance
from tilegrad import _random, backends, nn

ROWS, FEATURES, CLASSES = 6, 5, 3


def network(device: Device, dtype: str = "float32") -> nn.Sequential:
    """Every kind of module that does something else in training mode than in eval mode."""
    tg.manual_seed(4)
    return nn.Sequential(
        nn.Linear(FEATURES, 8, activation="gelu", dtype=dtype),  # keeps its preactivation
        nn.Dropout(0.5),
        nn.Linear(8, 7, activation="relu", dtype=dtype),
        nn.Linear(7, CLASSES, dtype=dtype),
        nn.PReLU(dtype=dtype),
    ).to(device.name)


def batch(rng: np.random.Generator, device: Device, dtype: str = "float32") -> tuple[Any, Any]:
    x = rng.standard_normal((ROWS, FEATURES)).astype(dtype)
    return device.put(x), device.put(rng.integers(0, CLASSES, ROWS))


def gradients(model: nn.Module) -> list[Any]:
    return [None if p.grad is None else host(p.grad).copy() for p in model.parameters()]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_add_up_until_zero_grad_beside_torch(
    dtype: str, rng: np.random.Generator, device: Device
) -> None:
    model = nn.Sequential(
        nn.Linear(FEATURES, 8, activation="tanh", dtype=dtype), nn.Linear(8, CLASSES, dtype=dtype)
    )
    twin = torch.nn.Sequential(
        torch.nn.Linear(FEATURES, 8), torch.nn.Tanh(), torch.nn.Linear(8, CLASSES)
    ).double()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        q.data = torch.tensor(p.data, dtype=torch.float64)
    model.to(device.name)
    loss_fn, bound = nn.CrossEntropyLoss(), 8 * tolerance(dtype, ROWS + 8)
    for _ in range(2):
        assert gradients(model) == [None] * 4
        for _ in range(3):
            x, t = batch(rng, device, dtype)
            loss_fn(model(x), t)
            model.backward(loss_fn.backward(), input_grad=False)
            logits = twin(torch.tensor(host(x), dtype=torch.float64))
            torch.nn.functional.cross_entropy(logits, torch.tensor(host(t))).backward()
            for p, q in zip(model.parameters(), twin.parameters(), strict=True):
                assert_close(p.grad, q.grad.numpy(), bound, what="gradient")
        model.zero_grad()
        twin.zero_grad()


def test_train_and_eval_reach_every_module(device: Device) -> None:
    model = network(device)
    for mode in (False, True, False):
        assert (model.train() if mode else model.eval()) is model
        assert [m.training for m in model.modules()] == [mode] * 6
    model[1].train()
    assert [m.training for m in model.modules()] == [False, False, True, False, False, False]


def refuse_gradient_work(device: Device, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Make native ops that serve gradients alone fail; return what linear is asked to keep."""
    module = backends.at(backends.place_of(device.name))
    names = [n for n in dir(module) if n.endswith(("_backward", "_value_and_grad", "dropout"))]
    assert {"linear_backward", "cross_entropy_value_and_grad", "dropout"} <= set(names)
    for name in names:

        def refused(*_: Any, name: str = name, **__: Any) -> None:
            raise AssertionError(f"{name} in eval mode")

        monkeypatch.setattr(module, name, refused)
    layer: Any = sys.modules["tilegrad.nn.linear"]  # in the package it is the function
    linear, kept = layer.linear, list[bool]()

    def watched(*operands: Any, **options: Any) -> Any:
        kept.append(options.get("save_preactivation", False))
        return linear(*operands, **options)

    monkeypatch.setattr(layer, "linear", watched)
    return kept


def long_form(model: nn.Module, loss_fn: nn.Module, x: Any, t: Any) -> float:
    return float(loss_fn(model(x), t))


def predict(model: nn.Module, loss_fn: nn.Module, x: Any, t: Any) -> float:
    return float(loss_fn(model.predict(x), t))


@pytest.mark.parametrize("run", [long_form, predict])
def test_eval_does_no_gradient_work(
    run: Callable[..., float], rng: np.random.Generator, device: Device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model, loss_fn, (x, t) = network(device), nn.CrossEntropyLoss(), batch(rng, device)
    loss_fn(model(x), t)
    model.backward(loss_fn.backward())
    before, stream = gradients(model), _random.get_state()
    model.eval()
    loss_fn.eval()
    kept = refuse_gradient_work(device, monkeypatch)
    first = run(model, loss_fn, x, t)
    assert run(model, loss_fn, x, t) == first, "dropout is the identity"
    assert not any(kept), "no preactivation is written"
    assert _random.get_state() == stream, "no random number is drawn"
    for one, other in zip(gradients(model), before, strict=True):
        assert_same_bits(one, other)
    if run is long_form:
        assert [m._saved for m in (*model.modules(), loss_fn)] == [None] * 7, "no operand is kept"
    for module in (model, loss_fn):
        with pytest.raises(RuntimeError, match="eval mode"):
            module.backward(x)


def test_the_guard_above_notices_gradient_work(
    rng: np.random.Generator, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, loss_fn, (x, t) = network(device), nn.CrossEntropyLoss(), batch(rng, device)
    kept = refuse_gradient_work(device, monkeypatch)
    with pytest.raises(AssertionError, match="dropout in eval mode"):
        model(x)
    assert kept == [True]
    model.eval()
    with pytest.raises(AssertionError, match="cross_entropy_value_and_grad in eval mode"):
        loss_fn(model(x), t)


def test_eval_in_the_middle_of_training_changes_nothing(
    rng: np.random.Generator, device: Device
) -> None:
    batches = [batch(rng, device) for _ in range(4)]
    weights = []
    for evaluates in (False, True):
        model, loss_fn = network(device), nn.CrossEntropyLoss()
        optimizer = tg.optim.Adam(model.parameters(), lr=0.01)
        tg.manual_seed(9)
        for x, t in batches:
            optimizer.zero_grad()
            loss_fn(model(x), t)
            model.backward(loss_fn.backward(), input_grad=False)
            if evaluates:
                model.eval()
                model(x)
                model.predict(x)
                model.train()
            optimizer.step()
        weights.append([host(p.data).copy() for p in model.parameters()])
    for one, other in zip(*weights, strict=True):
        assert_same_bits(one, other)
