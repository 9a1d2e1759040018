# SPDX-License-Identifier: MIT
"""Updates of the optimisers: the parameters of a small network, and of a large one."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

import tilegrad as tg
from tilegrad.bench import gpu_op_model
from tilegrad.bench.device import Workbench, host, tensor
from tilegrad.bench.environment import torch
from tilegrad.bench.harness import OURS, Call, Case, Contest, agree
from tilegrad.bench.workloads._common import FLOAT, Oracle

from ._common import size
from .train_step import SIZES

_LARGE = (4096, 11008)
_16_MIB = (2048, 2048)
_RATE = 1e-3
_VARIANTS = {"torch": {}, "torch foreach": {"foreach": True}, "torch fused": {"fused": True}}
# name: options, floats read and written a parameter, operations a parameter
_OPTIMIZERS: dict[str, tuple[dict[str, float], int, int]] = {
    "SGD": ({"momentum": 0.9}, 5, 4),
    "Adam": ({}, 7, 12),
    "AdamW": ({"weight_decay": 1e-2}, 7, 13),
    "RMSprop": ({}, 5, 8),
    "Adagrad": ({}, 5, 7),
}
_UNFUSED = {"RMSprop"}  # torch has no fused kernel of it


def cases(bench: Workbench) -> list[Case]:
    """Return the cases; a call is the step of the optimiser, with its cost on the host."""
    network: list[tuple[int, ...]] = [shape for i, o in pairwise(SIZES) for shape in ((o, i), (o,))]
    result = []
    for name, (options, floats, flops) in _OPTIMIZERS.items():
        for label, shapes in (
            ("MLP", network), ("16 MiB", [_16_MIB]), ("large", [_LARGE] * 4)
        ):  # fmt: skip
            sizes = [tuple(size(bench, part) for part in shape) for shape in shapes]
            count = sum(int(np.prod(shape)) for shape in sizes)
            quick = name == "Adam" and label == "MLP"
            build = partial(_build, bench, name, options, sizes)
            title = f"{name} {label} {count} f32"
            predicted = gpu_op_model.optimizer(count, floats)
            # the step of a small network is launch cost: it has no limit
            result.append(
                Case("optim", title, FLOAT * floats * count, flops * count, build, quick,
                     label != "MLP", predicted)
            )  # fmt: skip
    return result


def _build(
    bench: Workbench, kind: str, options: dict[str, float], shapes: list[tuple[int, ...]]
) -> Contest:
    start = [bench.normal("float32", *shape) for shape in shapes]
    gradients = [bench.normal("float32", *shape) for shape in shapes]
    parameters = [tg.nn.Parameter(values) for values in start]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    sides: dict[str, Call] = {OURS: getattr(tg.optim, kind)(parameters, _RATE, **options).step}
    updated: dict[str, Any] = {OURS: [parameter.data for parameter in parameters]}
    if torch() is not None:
        for label, how in _VARIANTS.items():
            if kind in _UNFUSED and "fused" in how:
                continue
            tensors = [tensor(values).clone().requires_grad_() for values in start]
            for one, gradient in zip(tensors, gradients, strict=True):
                one.grad = tensor(gradient).clone()
            sides[label] = getattr(torch().optim, kind)(tensors, _RATE, **options, **how).step
            updated[label] = tensors

    def check() -> None:
        part = range(min(2, len(start)))  # two tensors are enough of a flat list
        values = [host(start[i]) for i in part]
        oracle = Oracle(kind, values, lr=_RATE, **options)
        for _ in range(2):  # the second step is the first that uses the state
            oracle.update([host(gradients[i]) for i in part])
        moved = [after - before for after, before in zip(oracle.values, values, strict=True)]
        for side, call in sides.items():
            call()
            call()
            bench.synchronize()
            got = [host(updated[side][i]) - values[i] for i in part]
            agree({side: got}, moved, 1e-3)  # a step is a thousandth of a value's digits

    return Contest(sides[OURS], {k: v for k, v in sides.items() if k != OURS}, check)
