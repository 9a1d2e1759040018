# SPDX-License-Identifier: MIT
"""Updates of the 669,706 parameters of the multilayer perceptron by every optimiser."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

import tilegrad as tg
from tilegrad.bench.environment import torch
from tilegrad.bench.harness import OURS, Call, Case, Contest

from ._common import FLOAT, Oracle, judge, random
from .train_step import SIZES

_SHAPES = [shape for i, o in pairwise(SIZES) for shape in ((o, i), (o,))]
_COUNT = sum(int(np.prod(shape)) for shape in _SHAPES)
_RATE = 1e-3
# name: class, options, floats read and written a parameter, operations a parameter
_OPTIMIZERS: dict[str, tuple[str, dict[str, float], int, int]] = {
    "SGD": ("SGD", {}, 3, 2),
    "SGD momentum": ("SGD", {"momentum": 0.9}, 5, 4),
    "Adam": ("Adam", {}, 7, 12),
    "AdamW": ("AdamW", {"weight_decay": 1e-2}, 7, 13),
    "RMSprop": ("RMSprop", {}, 5, 8),
    "RMSprop centered momentum": ("RMSprop", {"momentum": 0.9, "centered": True}, 9, 15),
    "Adagrad": ("Adagrad", {}, 5, 7),
}
_UNFUSED = {"RMSprop"}  # torch has no fused kernel of it
_QUICK = {"SGD momentum", "Adam"}


def cases() -> list[Case]:
    """Return the cases."""
    return [
        Case("optim", f"{name} {_COUNT}", FLOAT * floats * _COUNT, flops * _COUNT,
             partial(_build, kind, options), name in _QUICK)
        for name, (kind, options, floats, flops) in _OPTIMIZERS.items()
    ]  # fmt: skip


def _build(kind: str, options: dict[str, float]) -> Contest:
    values = [random("values", *shape) for shape in _SHAPES]
    gradients = [random("gradient", *shape) for shape in _SHAPES]
    parameters = [tg.nn.Parameter(value) for value in values]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    sides: dict[str, Call] = {OURS: getattr(tg.optim, kind)(parameters, _RATE, **options).step}
    updated: dict[str, Any] = {OURS: [parameter.data for parameter in parameters]}
    if (pt := torch()) is not None:
        variants: dict[str, dict[str, bool]] = {
            "torch": {}, "torch foreach": {"foreach": True}, "torch fused": {"fused": True},
        }  # fmt: skip
        if kind in _UNFUSED:
            del variants["torch fused"]
        for label, how in variants.items():
            tensors = [pt.from_numpy(value.copy()).requires_grad_() for value in values]
            for tensor, gradient in zip(tensors, gradients, strict=True):
                tensor.grad = pt.from_numpy(gradient.copy())
            sides[label] = getattr(pt.optim, kind)(tensors, _RATE, **options, **how).step
            updated[label] = tensors

    peers = {name: call for name, call in sides.items() if name != OURS}
    left_out: dict[str, str] = {}

    def check() -> None:
        oracle = Oracle(kind, values, lr=_RATE, **options)
        for _ in range(2):  # the second step is the first that uses the state
            oracle.update(gradients)
        moved = [after - before for after, before in zip(oracle.values, values, strict=True)]
        for side, call in sides.items():
            call()
            call()
            after = [np.asarray(part.detach() if side != OURS else part) for part in updated[side]]
            got = [part - before for part, before in zip(after, values, strict=True)]
            judge(
                side, got, moved, 1e-3, peers, left_out
            )  # a step is a thousandth of a value's digits

    return Contest(sides[OURS], peers, check, left_out)
