# SPDX-License-Identifier: MIT
"""The elementwise losses as modules, beside torch's, and in a training step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tilegrad as tg
from helpers import Device, assert_close, assert_same_bits
from loss_ops import OPS, LossOp, every_loss, quiet, share
from tilegrad import nn

pytestmark = list(quiet)
REDUCTIONS = ("none", "mean", "sum")


def module(op: LossOp, **more: Any) -> Any:
    return getattr(nn, op.module)(**op.options, **more)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@every_loss
def test_modules_follow_torch(
    op: LossOp, reduction: str, device: Device, rng: np.random.Generator
) -> None:
    operands = op.draw(rng, [(6, 5)] * 3, "float32")
    loss_fn = module(op, reduction=reduction)
    theirs = getattr(torch.nn, op.module)(**op.options, reduction=reduction)
    want = theirs(*(torch.tensor(x) for x in operands)).numpy()
    scale = op.scale(*(x.astype(np.float64) for x in operands))
    bound = 1e-5 * (scale if reduction == "none" else scale.sum())
    got = loss_fn(*op.put(device, operands))
    assert_close(device.get(got), want, bound)
    mine = loss_fn.backward()
    want = op.call("_value_and_grad", *op.put(device, operands), reduction=reduction)[1]
    pairs = zip(mine, want, strict=True) if isinstance(mine, tuple) else [(mine, want)]
    for a, b in pairs:
        assert_same_bits(a, b)
    with pytest.raises(RuntimeError):
        loss_fn.backward()
    loss_fn.eval()
    assert_same_bits(loss_fn(*op.put(device, operands)), got)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("op", [op for op in OPS if len(op.operands) == 2], ids=str)
def test_a_training_step_has_the_bits_of_the_long_form(
    op: LossOp, reduction: str, device: Device, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((8, 6)).astype("f4")
    t = op.draw(rng, [(8, 5)] * 2, "float32")[1]
    more = {}
    if op.name.startswith("binary"):
        more["weight"] = rng.uniform(0.5, 2, 5).astype("f4")
    if op.name.endswith("logits"):
        more["pos_weight"] = rng.uniform(0.5, 2, (8, 1)).astype("f4")

    def make() -> tuple[Any, Any, Any]:
        tg.manual_seed(3)
        layers: list[Any] = [nn.Linear(6, 5)]
        if next(iter(op.operands.values())) is share:
            layers.append(nn.Sigmoid())
        if op.options.get("log_input") is False:
            layers.append(nn.Softplus())
        model = nn.Sequential(*layers).to(device.name)
        return (
            model,
            module(op, reduction=reduction, **more),
            tg.optim.SGD(model.parameters(), 0.01),
        )

    model, loss_fn, optimizer = make()
    step = tg.TrainStep(model, loss_fn, optimizer)
    short = [float(step(x, t)) for _ in range(3)]
    model, loss_fn, optimizer = make()
    long = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = loss_fn(model(device.put(x)), device.put(t))
        model.backward(loss_fn.backward())
        optimizer.step()
        long.append(float(loss))
    if device.name == "cpu":
        assert short == long
    else:
        assert short == pytest.approx(long, rel=1e-5)


def test_losses_of_three_operands_have_no_plan() -> None:
    model = nn.Linear(2, 3)
    for loss_fn in (nn.GaussianNLLLoss(), nn.MarginRankingLoss()):
        step = tg.TrainStep(model, loss_fn, tg.optim.SGD(model.parameters()))
        with pytest.raises(TypeError, match=type(loss_fn).__name__):
            step(np.zeros((4, 2), "f4"), np.zeros((4, 3), "f4"))
