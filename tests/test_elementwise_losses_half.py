# SPDX-License-Identifier: MIT
"""Elementwise losses of 16-bit operands: computed in float32, rounded once, also in TrainStep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tilegrad as tg
from half_inputs import BFLOAT16, Half, bits, every_half, normal
from helpers import Array, Device, assert_close, assert_same_bits, host
from loss_ops import LossOp, every_loss, quiet
from tilegrad import nn

pytestmark = list(quiet)
SHAPES = [((7, 5),) * 3, ((300,),) * 3, ((6, 5), (1, 5), (6, 5)), ((0,),) * 3, ((),) * 3]


def narrow(half: Half, x: Any) -> Array:
    """Return the bits of float32 results as they are rounded."""
    return half.round(np.asarray(host(x), np.float64))


@every_half
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@every_loss
def test_results_are_those_of_float32_rounded(
    device: Device, half: Half, op: LossOp, reduction: str, rng: np.random.Generator
) -> None:
    """Exactly, gradients that are summed over what was broadcast included."""
    for shapes in SHAPES:
        if not op.broadcasts and len(set(shapes)) > 1:
            continue
        values = [half.round(x) for x in op.draw(rng, shapes, np.float32)]
        full = np.broadcast_shapes(*(x.shape for x in values))
        g = half.round(rng.standard_normal(full)) if reduction == "none" else 0.75
        found = []
        for put in (half.put, lambda device, x: device.put(np.asarray(x, np.float32))):
            there = [put(device, x) for x in values]
            upstream = put(device, g) if reduction == "none" else g
            loss = op.call("", *there, reduction=reduction)
            gradients = op.call("_backward", upstream, *there, reduction=reduction, wrt=op.wrt)
            both = op.call("_value_and_grad", *there, reduction=reduction, wrt=op.wrt)
            found.append([loss, *gradients, both[0], *both[1]])
        for i, (mine, wide) in enumerate(zip(*found, strict=True)):
            assert_same_bits(half.get(mine), narrow(half, wide), what=f"{op} {shapes} {i}")


@every_half
@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
def test_regression_losses_are_near_torchs(device: Device, half: Half, name: str) -> None:
    """Torch rounds more often on the way: a few roundings of the mean of the terms."""
    rng = np.random.default_rng(3)
    x, t = (normal(rng, half, (64, 9)) for _ in range(2))
    input, target = (torch.tensor(v, dtype=half.torch, requires_grad=True) for v in (x, t))
    want = getattr(torch.nn.functional, name)(input, target)
    gradients = torch.autograd.grad(want, (input, target))
    call = [half.put(device, v) for v in (x, t)]
    loss, mine = getattr(tg, f"{name}_value_and_grad")(*call, wrt=("input", "target"))
    assert_close(
        half.get(loss), want.double().detach().numpy(), 4 * half.eps * float(want.detach())
    )
    for got, right in zip(mine, gradients, strict=True):
        scale = np.abs(right.double().numpy()) + half.spacing(np.array(0.0))
        assert_close(half.get(got), right.double().numpy(), 4 * half.eps * scale)


@pytest.mark.parametrize("loss_fn", [nn.MSELoss(), nn.L1Loss(), nn.HuberLoss()], ids=repr)
def test_a_network_learns_a_function_in_bfloat16(device: Device, loss_fn: nn.Module) -> None:
    """The use of nn.FusedMLP: a smooth function of few variables, by TrainStep and in long form."""
    rng = np.random.default_rng(8)
    x = BFLOAT16.round(rng.uniform(-1, 1, (70, 2)))
    y = BFLOAT16.round(np.sin(3 * x[:, :1]) * x[:, 1:])
    losses = []
    for form in ("plan", "long"):
        tg.manual_seed(2)
        model = nn.FusedMLP(2, 16, 1, 3, dtype="bfloat16").to(device.name)
        optimizer = tg.optim.Adam(model.parameters(), 0.01)
        batch, target = BFLOAT16.put(device, x), BFLOAT16.put(device, y)
        step, found = tg.TrainStep(model, loss_fn, optimizer), []
        for _ in range(12):
            if form == "plan":
                found.append(bits(step(batch, target)))
                continue
            optimizer.zero_grad()
            found.append(bits(loss_fn(model(batch), target)))
            model.backward(loss_fn.backward(), input_grad=False)
            optimizer.step()
        losses.append(found)
    for planned, long in zip(*losses, strict=True):
        assert_same_bits(planned, long)
    first, last = (np.uint32(v.item()) << 16 for v in (losses[0][0], losses[0][-1]))
    assert np.uint32(last).view(np.float32) < 0.8 * np.uint32(first).view(np.float32)
