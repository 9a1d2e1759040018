# SPDX-License-Identifier: MIT
"""Penalties on the weights: L1, which torch has no option for, beside torch's autograd; L2."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tilegrad as tg
from helpers import Device, assert_same_bits, host
from optim_cases import L1_CASES, NAMES, SHAPES, Pair
from tilegrad import nn
from tilegrad import reference as ref

L1 = 0.03


@pytest.fixture(params=["float32", "float64"])
def pair(request: pytest.FixtureRequest, device: Device) -> Pair:
    made = Pair(SHAPES, request.param, device)
    for i, (p, q) in enumerate(zip(made.ours, made.theirs, strict=True)):
        values = host(p.data).copy()
        values.reshape(-1)[i::3] = (0.0, -0.0)[i % 2]  # where the penalty has no slope
        p.data = device.put(values)
        q.data = torch.tensor(values)
    return made


@pytest.mark.parametrize(("name", "options"), L1_CASES)
def test_l1_decay_is_a_penalty_in_torchs_loss(
    pair: Pair, name: str, options: dict[str, Any]
) -> None:
    """The loss of one step is g . w, so that its gradient is g; autograd adds the penalty's."""
    ours = getattr(tg.optim, name)(pair.ours, l1_decay=L1, **options)
    theirs = getattr(torch.optim, name)(pair.theirs, **options)
    sign = -1 if options.get("maximize") else 1
    for step in range(30 if pair.device.name == "cpu" else 8):
        pair.gradients()
        loss = torch.zeros((), dtype=getattr(torch, pair.dtype))
        for q in pair.theirs:
            assert q.grad is not None
            loss = loss + (q * q.grad).sum() + sign * L1 * q.abs().sum()
            q.grad = None
        loss.backward()
        ours.step()
        theirs.step()
        pair.check(f"after step {step}")
        for p, q in zip(pair.ours, pair.theirs, strict=True):
            q.data = torch.tensor(host(p.data))  # a sign jumps where one weight is 0, one -1e-9


def test_l1_decay_moves_a_weight_to_zero_by_a_constant(device: Device) -> None:
    p = nn.Parameter(device.put(np.array([1.0, -1.0, 0.0, -0.0, np.nan])))
    optimiser = tg.optim.SGD([p], lr=0.5, l1_decay=0.25)
    for n in range(1, 5):
        p.grad = np.zeros(5)
        optimiser.step()
        left = 1 - n / 8
        np.testing.assert_array_equal(host(p.data), [left, -left, 0, 0, np.nan])


def test_both_penalties_are_added_after_clipping(device: Device) -> None:
    """As weight_decay is in torch: clip_grad_norm_ sees the loss's gradients alone."""
    w, g = np.array([3.0, -4.0]), np.array([30.0, 40.0])
    p = nn.Parameter(device.put(w))
    p.grad = g
    optimiser = tg.optim.SGD([p], lr=1.0, l1_decay=0.5, weight_decay=0.25)
    nn.utils.clip_grad_norm_(p, 5.0)
    optimiser.step()
    want = w - (g / 10 + 0.5 * np.sign(w) + 0.25 * w)
    np.testing.assert_allclose(host(p.data), want, rtol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_no_penalty_leaves_every_bit(name: str, device: Device) -> None:
    results = []
    for options in ({}, {"l1_decay": 0.0}, {"l1_decay": 0}):
        pair = Pair(SHAPES, "float32", device)
        optimiser = getattr(tg.optim, name)(pair.ours, lr=0.1, **options)
        for _ in range(3):
            pair.gradients()
            optimiser.step()
        results.append([host(p.data) for p in pair.ours])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert_same_bits(a, b)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("maximize", [False, True])
def test_rmsprop_and_adagrad_are_the_reference_formula(
    dtype: str, maximize: bool, device: Device
) -> None:
    """Adam's is in test_optim."""
    rng = np.random.default_rng(3)
    start = rng.standard_normal(40).astype(dtype)
    common = {"lr": 0.05, "weight_decay": 0.1, "l1_decay": L1, "maximize": maximize}
    rms: dict[str, Any] = {"alpha": 0.8, "eps": 1e-2, "momentum": 0.6, "centered": True, **common}
    ada: dict[str, Any] = {"lr_decay": 0.1, "eps": 1e-4, **common}
    p, q = (nn.Parameter(device.put(start)) for _ in range(2))
    optimisers = [
        tg.optim.RMSprop([p], **rms),
        tg.optim.Adagrad([q], initial_accumulator_value=0.2, **ada),
    ]
    w, v = start.astype(np.float64), start.astype(np.float64)
    state: list[Any] = [np.zeros(40)] * 3
    total: Any = np.full(40, 0.2)
    for step in range(1, 26):
        g = rng.standard_normal(40).astype(dtype)
        p.grad = q.grad = g
        for optimiser in optimisers:
            optimiser.step()
        w, *state = ref.rmsprop(w, g, *state, **rms)
        v, total = ref.adagrad(v, g, total, step, **ada)
    # A step's rounding error is a few eps of the largest weight; a reduction by momentum and
    # decay keeps 25 of them from adding up beyond 25.
    bound = 25 * np.finfo(dtype).eps
    assert np.abs(host(p.data) - w).max() <= bound * np.abs(w).max()
    assert np.abs(host(q.data) - v).max() <= bound * np.abs(v).max()
