# SPDX-License-Identifier: MIT
"""One training step of a multilayer perceptron: forward, loss, backward, update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

import tilegrad as tg
from tilegrad import reference
from tilegrad.bench.environment import jax, torch
from tilegrad.bench.harness import OURS, Call, Case, Contest

from . import _jax
from ._common import FLOAT, Array, Oracle, judge, random, tensors

SIZES = (784, 512, 512, 10)
_BATCHES = (32, 128, 1024)
_RATES = {"SGD": 0.1, "Adam": 1e-3}
_STATE = {"SGD": 0, "Adam": 2}  # arrays beside the parameters that are read and written
_STEPS_CHECKED = 3
# While timed, the weights stay about where they are: training the same batch thousands of times
# would drive gradients and Adam's means into denormal numbers, and time those.
_TIMED_RATE = 1e-7


def cases() -> list[Case]:
    """Return the cases; the same batch in every step."""
    return [
        case(f"{optimizer} batch {batch}", SIZES, batch, optimizer, quick=batch == 32)
        for optimizer in _RATES
        for batch in _BATCHES
    ]


def case(
    name: str,
    sizes: Sequence[int],
    batch: int,
    optimizer: str,
    *,
    family: str = "train_step",
    quick: bool = False,
    limited: bool = True,
) -> Case:
    """Return the case of a network with these widths."""
    layers = [a * b for a, b in pairwise(sizes)]
    parameters = sum(layers) + sum(sizes[1:])
    flops = batch * (6 * sum(layers) - 2 * layers[0])  # nobody needs the first layer's dx
    moved = FLOAT * (parameters * (2 + 2 * _STATE[optimizer]) + batch * sizes[0])
    return Case(
        family, name, moved, flops, partial(_build, sizes, batch, optimizer), quick, limited
    )


def operands(sizes: Sequence[int], batch: int) -> tuple[list[Array], Array, Array]:
    """Return a network's first weights and biases in turn, a batch and its classes."""
    start = [
        part.astype(np.float32)
        for i, o in pairwise(sizes)
        for part in (random("weight", o, i) / np.float32(i**0.5), random("bias", o) * FLOAT / i)
    ]
    target = np.random.default_rng(0).integers(0, sizes[-1], batch)
    return start, random("x", batch, sizes[0]), target


def _build(sizes: Sequence[int], batch: int, optimizer: str) -> Contest:
    start, x, target = operands(sizes, batch)
    sides: dict[str, Call] = {}
    slow_down: list[Callable[[], None]] = []

    layers = [
        tg.nn.Linear(i, o, activation="relu" if k < len(sizes) - 2 else None)
        for k, (i, o) in enumerate(pairwise(sizes))
    ]
    model = tg.nn.Sequential(*layers)
    for parameter, values in zip(model.parameters(), start, strict=True):
        parameter.data = values
    update = getattr(tg.optim, optimizer)(model.parameters(), _RATES[optimizer])
    step = tg.TrainStep(model, tg.nn.CrossEntropyLoss(), update)
    sides[OURS] = lambda: step(x, target)
    slow_down.append(partial(_set_rate, update))

    if torch() is not None:
        variants: dict[str, dict[str, bool]] = {
            "torch": {}, "torch foreach": {"foreach": True}, "torch fused": {"fused": True},
        }  # fmt: skip
        for label, options in variants.items():
            sides[label], slow = torch_eager(start, x, target, optimizer, options)
            slow_down.append(slow)
        if optimizer == "SGD":
            sides["torch by hand"], slow = _torch_by_hand(start, x, target)
            slow_down.append(slow)

    if jax() is not None:
        sides["jax"], set_rate = _jax.step(start, x, target, optimizer, _RATES[optimizer])
        slow_down.append(partial(set_rate, _TIMED_RATE))

    return race(sides, slow_down, start, x, target, optimizer)


def race(
    sides: dict[str, Call],
    slow_down: Sequence[Callable[[], None]],
    start: list[Array],
    x: Array,
    target: Array,
    optimizer: str,
) -> Contest:
    """Return the contest of training steps; its check compares the losses of the first ones."""
    peers = {name: call for name, call in sides.items() if name != OURS}
    left_out: dict[str, str] = {}

    def check() -> None:
        wanted = _expected(start, x, target, optimizer)
        for side, call in sides.items():
            losses = [np.asarray(call().item()) for _ in range(_STEPS_CHECKED)]
            judge(side, losses, wanted, 1e-4, peers, left_out)
        for slow in slow_down:
            slow()

    return Contest(sides[OURS], peers, check, left_out)


def _set_rate(optimizer: Any) -> None:
    for group in optimizer.param_groups:
        group["lr"] = _TIMED_RATE


def torch_eager(
    start: list[Array],
    x: Array,
    target: Array,
    optimizer: str,
    options: dict[str, bool],
    accelerated: bool = False,
) -> tuple[Call, Callable[[], None]]:
    """Return the step that every tutorial of torch shows; or the same by `tilegrad.torch`."""
    pt = torch()
    modules: list[Any] = []
    for weight, bias in zip(start[::2], start[1::2], strict=True):
        layer = pt.nn.Linear(*weight.shape[::-1])
        layer.weight.data.copy_(pt.from_numpy(weight))
        layer.bias.data.copy_(pt.from_numpy(bias))
        modules += [layer, pt.nn.ReLU()]
    model, loss_of, optim = pt.nn.Sequential(*modules[:-1]), pt.nn.CrossEntropyLoss(), pt.optim
    if accelerated:
        import tilegrad.torch as tt

        model, loss_of, optim = tt.accelerate(model).model, tt.CrossEntropyLoss(), tt
    update = getattr(optim, optimizer)(model.parameters(), _RATES[optimizer], **options)
    tx, classes = tensors(x, target)

    def step() -> Any:
        update.zero_grad(set_to_none=True)
        loss = loss_of(model(tx), classes)
        loss.backward()
        update.step()
        return loss

    return step, partial(_set_rate, update)


def _torch_by_hand(start: list[Array], x: Array, target: Array) -> tuple[Call, Callable[[], None]]:
    """Return SGD without autograd and modules: torch's kernels and nothing else."""
    pt = torch()
    params = [pt.from_numpy(part.copy()) for part in start]
    weights, biases = params[::2], params[1::2]
    tx, tt = tensors(x, target)
    rows, rate = pt.arange(len(x)), [_RATES["SGD"]]
    masked = pt.ops.aten.threshold_backward

    def step() -> Any:
        inputs = [tx]
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            inputs.append(pt.relu_(pt.addmm(bias, inputs[-1], weight.t())))
        logs = pt.log_softmax(pt.addmm(biases[-1], inputs[-1], weights[-1].t()), 1)
        loss = pt.nn.functional.nll_loss(logs, tt)
        d = logs.exp_()
        d[rows, tt] -= 1
        d.div_(len(tx))
        for k in reversed(range(len(weights))):
            dx = pt.mm(d, weights[k]) if k else None
            weights[k].addmm_(d.t(), inputs[k], alpha=-rate[0])  # the update inside the product
            biases[k].add_(d.sum(0), alpha=-rate[0])
            if k:
                d = masked(dx, inputs[k], 0)
        return loss

    def slow() -> None:
        rate[0] = _TIMED_RATE

    return step, slow


def _expected(start: list[Array], x: Array, target: Array, optimizer: str) -> list[Array]:
    """Return the losses of the first steps, in float64."""
    oracle = Oracle(optimizer, start, lr=_RATES[optimizer])
    losses = []
    last = len(start) // 2 - 1
    for _ in range(_STEPS_CHECKED):
        params = oracle.values
        inputs = [x.astype(np.float64)]
        for k in range(last + 1):
            relu = "relu" if k < last else None
            inputs.append(reference.linear(inputs[k], params[2 * k], params[2 * k + 1], relu))
        loss, d = reference.cross_entropy_value_and_grad(inputs[-1], target)
        losses.append(np.asarray(loss))
        gradients: list[Any] = []
        grad: Any = d
        for k in reversed(range(last + 1)):
            relu = "relu" if k < last else None
            grad, dw, db = reference.linear_backward(
                grad, inputs[k], params[2 * k], params[2 * k + 1], relu
            )
            gradients = [dw, db, *gradients]
        oracle.update(gradients)
    return losses
