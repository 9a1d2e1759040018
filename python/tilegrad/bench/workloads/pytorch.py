# SPDX-License-Identifier: MIT
"""tilegrad's operators inside PyTorch beside PyTorch's own: what a call costs, and what it gains.

The tiny cases are all overhead: the way through the dispatcher, autograd and Python.
"""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import Any

import numpy as np

from tilegrad import reference
from tilegrad.bench.environment import torch
from tilegrad.bench.harness import OURS, Case, Contest

from . import train_step
from ._common import FLOAT, contest, random, tensors

_ADAM = {"torch": {}, "torch foreach": {"foreach": True}, "torch fused": {"fused": True}}


def cases() -> list[Case]:
    """Return the cases; none where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return []
    layers, losses, steps = [(1, 8, 8), (128, 784, 512)], [(1, 10), (1024, 1000)], [1, 32]
    found = [Case("pytorch", "linear 1x8->8", FLOAT * 88, 136, _forward, True, False)]
    for rows, i, o in layers:
        moved, flops = FLOAT * (2 * rows * i + 2 * o * i + 2 * rows * o), 6 * rows * i * o
        found.append(
            Case("pytorch", f"linear {rows}x{i}->{o} gelu tanh, backward", moved, flops,
                 partial(_layer, rows, i, o), rows == 1, rows > 1)
        )  # fmt: skip
    for rows, classes in losses:
        found.append(
            Case("pytorch", f"cross_entropy {rows}x{classes}, backward",
                 FLOAT * 2 * rows * classes + 8 * rows, 6 * rows * classes,
                 partial(_loss, rows, classes), rows == 1, rows > 1)
        )  # fmt: skip
    for batch in steps:
        sizes = (8, 8, 2) if batch == 1 else train_step.SIZES
        work = train_step.case("", sizes, batch, "Adam")
        found.append(
            Case("pytorch", f"{'-'.join(map(str, sizes))} Adam step batch {batch}", work.bytes,
                 work.flops, partial(_step, sizes, batch), batch == 1, batch > 1)
        )  # fmt: skip
    return found


def _forward() -> Contest:
    import tilegrad.torch as tt

    operands = random("x", 1, 8), random("weight", 8, 8), random("bias", 8)
    (x, w, b), layer = tensors(*operands), torch().nn.functional.linear
    return contest(
        lambda: tt.linear(x, w, b),
        {"torch": lambda: layer(x, w, b)},
        lambda: reference.linear(*operands),
    )


def _layer(rows: int, i: int, o: int) -> Contest:
    import tilegrad.torch as tt

    pt = torch()
    operands = random("x", rows, i), random("weight", o, i) / np.float32(i**0.5), random("bias", o)
    dy = random("dy", rows, o)
    x, w, b = leaves = [t.requires_grad_() for t in tensors(*operands)]
    (grad,), f = tensors(dy), pt.nn.functional

    def gradients(y: Any) -> Any:
        return pt.autograd.grad(y, leaves, grad)

    return contest(
        lambda: gradients(tt.linear(x, w, b, "gelu_tanh")),
        {"torch": lambda: gradients(f.gelu(f.linear(x, w, b), approximate="tanh"))},
        lambda: reference.linear_backward(dy, *operands, "gelu_tanh"),
    )


def _loss(rows: int, classes: int) -> Contest:
    import tilegrad.torch as tt

    pt = torch()
    x, target = random("logits", rows, classes), np.random.default_rng(0).integers(0, classes, rows)
    given, labels = tensors(x, target)
    given.requires_grad_()

    def both(loss: Any) -> Any:
        return (loss, *pt.autograd.grad(loss, given))

    return contest(
        lambda: both(tt.cross_entropy(given, labels)),
        {"torch": lambda: both(pt.nn.functional.cross_entropy(given, labels))},
        lambda: reference.cross_entropy_value_and_grad(x, target),
    )


def _step(sizes: tuple[int, ...], batch: int) -> Contest:
    given = (*train_step.operands(sizes, batch), "Adam")
    made = {OURS: train_step.torch_eager(*given, {}, accelerated=True)}
    made |= {label: train_step.torch_eager(*given, how) for label, how in _ADAM.items()}
    sides = {label: call for label, (call, _) in made.items()}
    return train_step.race(sides, [slow for _, slow in made.values()], *given)
