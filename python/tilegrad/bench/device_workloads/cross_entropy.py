# SPDX-License-Identifier: MIT
"""Cross-entropy: the mean loss and its gradient together, and every rung of the ladder."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import tilegrad as tg
from tilegrad import reference
from tilegrad.bench import gpu_op_model
from tilegrad.bench.device import (
    ITEM,
    TOLERANCE,
    LeftOut,
    Rotation,
    Workbench,
    checked,
    host,
    rotating,
    some_rows,
    tensor,
)
from tilegrad.bench.environment import torch
from tilegrad.bench.harness import OURS, Call, Case, Contest

from ._common import SHORT, compiled, size, unless_missing

SHAPES = (
    (8192, 32768, "bfloat16"), (16384, 128256, "bfloat16"), (8192, 32768, "float32"),
    (4096, 50257, "bfloat16"), (1024, 1000, "float32"), (128, 10, "float32"),
    (2048, 262144, "float32"),
)  # fmt: skip
RUNGS = ("three_pass", "online_warp", "block_row", "one_pass", "cluster")
_LADDER = (SHAPES[0], SHAPES[4], SHAPES[5])
_ROWS_AT_ONCE = 512  # of the expected loss, in float64
_SPARE = 1.3  # memory beyond the arrays of all sides: workspace, caches


def cases(bench: Workbench) -> list[Case]:
    """Return the cases: logits are read once, their gradient is written once."""
    result = []
    for family, shapes, rungs in (
        ("cross_entropy", SHAPES, (None,)),
        ("cross_entropy_ladder", _LADDER, RUNGS),
    ):
        for shape in shapes:
            rows, classes = (size(bench, part) for part in shape[:2])
            dtype = shape[2]
            for rung in rungs:
                name = f"{rung + ' ' if rung else ''}{rows}x{classes} {SHORT[dtype]}"
                moved = 2 * ITEM[dtype] * rows * classes + 8 * rows
                build = partial(_build, bench, rows, classes, dtype, rung, moved)
                quick = shape == SHAPES[0] and rung in (None, "one_pass")
                predicted = gpu_op_model.cross_entropy(rows, classes, dtype, rung)
                flops = 6.0 * rows * classes
                result.append(Case(family, name, moved, flops, build, quick, predicted=predicted))
    return result


def room(bench: Workbench, rows: int, classes: int, dtype: str) -> None:
    """Leave the case out where the memory of the device is too small for all sides."""
    if bench.cuda:
        # logits, our gradient, and of torch logits in float32, their softmax and two gradients
        needed = _SPARE * rows * classes * (3 * ITEM[dtype] + 4 * 4)
        free = tg.cuda.properties(bench.device)["free_memory"]
        if needed > free:
            raise LeftOut(f"needs {needed / 1e9:.0f} GB of memory; {free / 1e9:.0f} GB are free")


def _build(
    bench: Workbench, rows: int, classes: int, dtype: str, rung: str | None, moved: float
) -> Contest:
    room(bench, rows, classes, dtype)
    sets = range(bench.sets(moved))
    x = [bench.normal(dtype, rows, classes) for _ in sets]
    target = [bench.classes(rows, classes) for _ in sets]

    def ours(i: int) -> Call:
        return lambda: tg.cross_entropy_value_and_grad(x[i], target[i], variant=rung)

    with unless_missing(bench):
        ours(0)()
    sides = rotating({OURS: ours}, len(sets))
    if (pt := torch()) is not None:

        def value_and_grad(leaf: Any, classes_of: Any) -> Any:
            loss = pt.nn.functional.cross_entropy(leaf, classes_of)
            return (loss, *pt.autograd.grad(loss, leaf))

        def theirs(function: Any) -> Call:
            return Rotation([
                partial(function, tensor(x[i]).detach().requires_grad_(), tensor(target[i]))
                for i in sets
            ])  # fmt: skip

        bench.peer(sides, "torch", lambda: theirs(value_and_grad))
        if bench.cuda and rung is None:
            loss_of = compiled(pt.nn.functional.cross_entropy)

            def fast(leaf: Any, classes_of: Any) -> Any:
                loss = loss_of(leaf, classes_of)
                return (loss, *pt.autograd.grad(loss, leaf))

            bench.peer(sides, "torch compile", lambda: theirs(fast))
    chosen = some_rows(rows)

    def expected() -> Any:
        part = np.stack([host(x[0][int(row)]) for row in chosen])
        classes_of = host(target[0]).astype(np.int64)
        _, slope = reference.cross_entropy_value_and_grad(part, classes_of[chosen], reduction="sum")
        return [np.asarray(_loss(x[0], classes_of)), (slope / rows, chosen)]

    return checked(bench, sides, expected, 2 * TOLERANCE[dtype])


def _loss(x: Any, target: Any) -> float:
    """Return the mean loss in float64, a part of the rows at a time."""
    rows, total = len(target), 0.0
    pt = torch()
    for start in range(0, rows, _ROWS_AT_ONCE):
        part = slice(start, min(start + _ROWS_AT_ONCE, rows))
        if pt is None:
            total += float(reference.cross_entropy(host(x[part]), target[part], reduction="sum"))
        else:
            wide = tensor(x[part]).double()
            index = pt.from_numpy(target[part]).to(wide.device)[:, None]
            total += float((wide.logsumexp(1) - wide.gather(1, index)[:, 0]).sum())
    return total / rows
