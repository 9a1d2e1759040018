# SPDX-License-Identifier: MIT
"""Cross-entropy with label smoothing, class weights and an ignored class, all in the same pass."""

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

from ._common import SHORT, compiled, size
from .cross_entropy import room

_SHAPE = (8192, 32768, "bfloat16")
_SMOOTHING, _IGNORED = 0.1, 3
_ROWS_AT_ONCE = 512  # of the expected loss, in float64


def cases(bench: Workbench) -> list[Case]:
    """Return the case: as without options, logits are read once and the gradient written once."""
    rows, classes = (size(bench, part) for part in _SHAPE[:2])
    dtype = _SHAPE[2]
    moved = 2 * ITEM[dtype] * rows * classes + 8 * rows
    build = partial(_build, bench, rows, classes, dtype, moved)
    name = f"{rows}x{classes} {SHORT[dtype]}"
    predicted = gpu_op_model.cross_entropy(rows, classes, dtype)
    return [
        Case("cross_entropy_options", name, moved, 9.0 * rows * classes, build, predicted=predicted)
    ]


def _build(bench: Workbench, rows: int, classes: int, dtype: str, moved: float) -> Contest:
    room(bench, rows, classes, dtype)
    sets = range(bench.sets(moved))
    x = [bench.normal(dtype, rows, classes) for _ in sets]
    target = [bench.classes(rows, classes) for _ in sets]
    weight = tg.sigmoid(bench.normal(dtype, classes))  # above zero
    options: dict[str, Any] = {"ignore_index": _IGNORED, "label_smoothing": _SMOOTHING}

    def ours(i: int) -> Call:
        return lambda: tg.cross_entropy_value_and_grad(x[i], target[i], weight, **options)

    sides = rotating({OURS: ours}, len(sets))
    if (pt := torch()) is not None:
        usual = partial(pt.nn.functional.cross_entropy, weight=tensor(weight), **options)

        def theirs(function: Any) -> Call:
            def call(leaf: Any, classes_of: Any) -> Any:
                loss = function(leaf, classes_of)
                return (loss, *pt.autograd.grad(loss, leaf))

            return Rotation([
                partial(call, tensor(x[i]).detach().requires_grad_(), tensor(target[i]))
                for i in sets
            ])  # fmt: skip

        bench.peer(sides, "torch", lambda: theirs(usual))
        if bench.cuda:
            bench.peer(sides, "torch compile", lambda: theirs(compiled(usual)))
    chosen = some_rows(rows)

    def expected() -> Any:
        part = np.stack([host(x[0][int(row)]) for row in chosen])
        classes_of, wide = host(target[0]).astype(np.int64), host(weight)
        total = wide[classes_of[classes_of != _IGNORED]].sum()
        settings = (wide, _IGNORED, "sum", _SMOOTHING)
        _, slope = reference.cross_entropy_value_and_grad(part, classes_of[chosen], *settings)
        loss = sum(
            float(reference.cross_entropy(
                host(x[0][start : start + _ROWS_AT_ONCE]),
                classes_of[start : start + _ROWS_AT_ONCE], *settings,
            ))
            for start in range(0, rows, _ROWS_AT_ONCE)
        )  # fmt: skip
        return [np.asarray(loss / total), (slope / total, chosen)]

    return checked(bench, sides, expected, 2 * TOLERANCE[dtype])
