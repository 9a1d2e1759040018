# SPDX-License-Identifier: MIT
"""Sequences for the tests of ctc_loss, and the comparison with the reference and torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

import tilegrad as tg
from helpers import Array, Device, assert_close, assert_same_bits, frozen, tolerance
from tilegrad import reference as ref


@dataclass(frozen=True)
class Batch:
    """The arguments of a call, on the host."""

    log_probs: Array
    targets: Array
    input_lengths: Any
    target_lengths: Any
    blank: int = 0

    def on(self, device: Device) -> tuple[Any, ...]:
        there = device.put(self.log_probs), device.put(self.targets)
        return (*there, self.input_lengths, self.target_lengths, self.blank)

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.on(Device("cpu"))


def log_softmax(x: Array) -> Array:
    return np.asarray(ref.log_softmax(x, -1))


def draw(
    rng: np.random.Generator, shape: tuple[int, int, int, int], dtype: Any = np.float64,
    ragged: bool = True,
) -> Batch:  # fmt: skip
    """Return random sequences of (times, samples, classes, most labels); the first is full."""
    times, samples, classes, labels = shape
    y = log_softmax(rng.normal(0, 2, (times, samples, classes))).astype(dtype)
    blank = classes // 2
    targets = rng.integers(0, max(classes - 1, 1), (samples, labels))
    targets += (targets >= blank) & (classes > 1)  # the blank is no label
    input_lengths = np.full(samples, times)
    target_lengths = np.full(samples, labels)
    if ragged and samples > 1:
        input_lengths[1:] = rng.integers(0, times + 1, samples - 1)
        target_lengths[1:] = rng.integers(0, labels + 1, samples - 1)
    return Batch(frozen(y), frozen(targets), input_lengths, target_lengths, blank)


def packed(batch: Batch) -> Batch:
    """Return the same targets one after the other."""
    rows = zip(batch.targets, batch.target_lengths, strict=True)
    return replace(batch, targets=np.concatenate([row[:count] for row, count in rows]))


def torch_answer(
    batch: Batch, reduction: str, zero_infinity: bool, g: Any, through: bool = False
) -> tuple[Array, Array]:
    """Return torch's loss and gradient in float64, through a log_softmax or without it."""
    leaf = torch.tensor(batch.log_probs, dtype=torch.float64, requires_grad=True)
    y = F.log_softmax(leaf, -1) if through else leaf
    lengths = (torch.tensor(batch.input_lengths), torch.tensor(batch.target_lengths))
    targets = torch.tensor(batch.targets.astype(np.int64))
    loss = F.ctc_loss(y, targets, *lengths, batch.blank, reduction, zero_infinity)
    loss.backward(torch.tensor(np.asarray(g, np.float64)))
    return loss.detach().numpy(), leaf.grad.numpy()


def state_error(device: Device, batch: Batch) -> float:
    """Bound the error of a state: what its steps round, in float64, and compute less exactly.

    A state is a sum of one log-probability and one logarithm of at most 3 a step. The logarithm is
    as exact as float64 on the cpu, on a device as the dtype: a polynomial or two of 2 ulp.
    """
    y = np.asarray(batch.log_probs, np.float64)
    largest = np.abs(np.where(np.isfinite(y), y, 0)).max(axis=-1, initial=0)
    sizes = largest.sum(axis=0).max(initial=0) + 2 * len(y)
    step = np.finfo(np.float64 if device.name == "cpu" else batch.log_probs.dtype).eps
    return tolerance(np.float64, 2 * len(y)) * float(sizes) + 4 * float(step) * len(y)


def check(
    device: Device, batch: Batch, reduction: str, zero_infinity: bool, g: Any, torchs: bool = True
) -> None:
    """Compare loss and gradient with the reference and with torch."""
    dtype = batch.log_probs.dtype
    eps, state = float(np.finfo(dtype).eps), state_error(device, batch)
    options = (reduction, zero_infinity)
    want = ref.ctc_loss(*batch.arguments, *options)
    want_grad = ref.ctc_loss_backward(g, *batch.arguments, *options)
    # An exponential to 2 ulp, a share with three states in its exponent, their difference, g.
    bound = np.abs(np.asarray(g)).max(initial=0) * (6 * eps + 3 * state)
    terms = len(batch.input_lengths) if reduction == "sum" else 1
    loss_bound = eps * np.abs(want) + state * terms
    there = batch.on(device)
    with device.guarded_out(want.shape, dtype) as out:
        tg.ctc_loss(*there, *options, out=out)
        loss = device.get(out)
    with device.guarded_out(batch.log_probs.shape, dtype) as out:
        tg.ctc_loss_backward(device.put(np.asarray(g, dtype)), *there, *options, out=out)
        gradient = device.get(out)
    assert_close(loss, want, loss_bound, what="loss")
    assert_close(gradient, want_grad, bound, what="gradient")
    if torchs:
        value, slope = torch_answer(batch, *options, g)
        assert_close(loss, value, loss_bound, what="torch's loss")
        assert_close(gradient, slope, bound, what="torch's gradient")


def answers(device: Device, batch: Batch, reduction: str = "none") -> tuple[Array, Array]:
    pair = tg.ctc_loss_value_and_grad(*batch.on(device), reduction)
    return device.get(pair[0]), device.get(pair[1])


def same(one: tuple[Array, ...], other: tuple[Array, ...], what: str) -> None:
    for a, b in zip(one, other, strict=True):
        assert_same_bits(a, b, what=what)
