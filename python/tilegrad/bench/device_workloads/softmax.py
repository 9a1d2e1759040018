# SPDX-License-Identifier: MIT
"""Softmax along the last axis, forward and backward."""

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

from ._common import SHORT, compiled, size, unless_missing

SHAPES = (
    (8192, 32768, "bfloat16"), (8192, 32768, "float32"), (4096, 4096, "float16"),
    (1024, 1000, "float32"), (128, 10, "float32"), (1_000_000, 10, "float32"),
)  # fmt: skip
_QUICK = SHAPES[0]
_COMPILED = 1_000_000  # elements; a smaller one is launch cost, and each takes seconds to compile
_FLOPS = {"forward": 5, "backward": 4}  # an element: maximum, subtract, exp, add, divide


def cases(bench: Workbench) -> list[Case]:
    """Return the cases: forward reads x, writes y; backward reads dy and y, writes dx."""
    result = []
    for shape in SHAPES:
        rows, classes = (size(bench, part) for part in shape[:2])
        dtype = shape[2]
        for way, arrays in (("forward", 2), ("backward", 3)):
            n = rows * classes
            moved = arrays * ITEM[dtype] * n
            build = partial(_build, bench, rows, classes, dtype, way, moved)
            name = f"softmax {rows}x{classes} {SHORT[dtype]} {way}"
            predicted = gpu_op_model.softmax(rows, classes, dtype, way)
            result.append(
                Case("softmax", name, moved, _FLOPS[way] * n, build, shape == _QUICK,
                     predicted=predicted)
            )  # fmt: skip
    return result


def _build(
    bench: Workbench, rows: int, classes: int, dtype: str, way: str, moved: float
) -> Contest:
    backward = way == "backward"
    sets = range(bench.sets(moved))
    x = [bench.normal(dtype, rows, classes) for _ in sets]
    out = [bench.empty(dtype, rows, classes) for _ in sets]
    with unless_missing(bench):
        y = [tg.softmax(part, 1) for part in x]
    dy = [bench.normal(dtype, rows, classes) for _ in sets] if backward else x

    def ours(i: int) -> Call:
        if backward:
            return lambda: tg.softmax_backward(dy[i], x[i], 1, output=y[i], out=out[i])
        return lambda: tg.softmax(x[i], 1, out=out[i])

    sides = rotating({OURS: ours}, len(sets))
    if (pt := torch()) is not None:
        kernel = pt.ops.aten._softmax_backward_data
        kind = tensor(x[0]).dtype

        def usual(*given: Any) -> Any:
            return kernel(*given, 1, kind) if backward else pt.softmax(*given, 1)

        arguments = [[tensor(a) for a in ((dy[i], y[i]) if backward else (x[i],))] for i in sets]
        bench.peer(sides, "torch", lambda: Rotation([partial(usual, *a) for a in arguments]))
        if bench.cuda and x[0].size >= _COMPILED:
            fast = compiled(usual)
            bench.peer(
                sides, "torch compile", lambda: Rotation([partial(fast, *a) for a in arguments])
            )
    chosen = some_rows(rows)

    def expected() -> Any:
        part = np.stack([host(x[0][int(row)]) for row in chosen])
        if backward:
            slope = np.stack([host(dy[0][int(row)]) for row in chosen])
            return [(reference.softmax_backward(slope, part, 1), chosen)]
        return [(reference.softmax(part, 1), chosen)]

    return checked(bench, sides, expected, 2 * TOLERANCE[dtype])
