# SPDX-License-Identifier: MIT
"""Activations and their derivatives on arrays of a million to a hundred million elements."""

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
    tensor,
)
from tilegrad.bench.environment import torch
from tilegrad.bench.harness import OURS, Call, Case, Contest

from ._common import SHORT, compiled, size, unless_missing

_SIZES = (1_000_000, 1 << 23, 100_000_000)  # 16 MiB of 16 bits in the middle
# label: function, options, operations of the formula forward and backward
_FUNCTIONS: dict[str, tuple[str, dict[str, str], tuple[int, int]]] = {
    "relu": ("relu", {}, (1, 1)),
    "gelu": ("gelu", {}, (5, 10)),
    "gelu_tanh": ("gelu", {"approximate": "tanh"}, (12, 20)),
    "silu": ("silu", {}, (5, 8)),
    "tanh": ("tanh", {}, (5, 3)),
}
_QUICK = {("gelu", 1 << 23)}
_CHECKED = 200_000  # elements at each end that are compared: the reference's erf is slow


def cases(bench: Workbench) -> list[Case]:
    """Return the cases: forward reads x and writes y; backward reads dy and x, writes dx."""
    result = []
    for label, (_, _, flops) in _FUNCTIONS.items():
        for dtype in ("float32", "bfloat16"):
            for elements in _SIZES:
                n = size(bench, elements)
                quick = dtype == "float32" and (label, elements) in _QUICK
                for way, arrays, work in (("forward", 2, flops[0]), ("backward", 3, flops[1])):
                    moved = arrays * ITEM[dtype] * n
                    build = partial(_build, bench, label, way, dtype, n, moved)
                    name = f"{label} {n} {SHORT[dtype]} {way}"
                    predicted = gpu_op_model.activation(label, way, dtype, n, work)
                    result.append(
                        Case("activation", name, moved, work * n, build, quick,
                             predicted=predicted)
                    )  # fmt: skip
    return result


def _build(bench: Workbench, label: str, way: str, dtype: str, n: int, moved: float) -> Contest:
    name, options, _ = _FUNCTIONS[label]
    backward = way == "backward"
    sets = range(bench.sets(moved))
    x = [bench.normal(dtype, n) for _ in sets]
    dy = [bench.normal(dtype, n) for _ in sets] if backward else x
    out = [bench.empty(dtype, n) for _ in sets]
    function = getattr(tg, f"{name}_backward" if backward else name)

    def ours(i: int) -> Call:
        operands = (dy[i], x[i]) if backward else (x[i],)
        return lambda: function(*operands, **options, out=out[i])

    with unless_missing(bench):
        ours(0)()
    sides = rotating({OURS: ours}, len(sets))
    if torch() is not None:
        usual = _torch(name, options, backward)
        arguments = [[tensor(a) for a in ((dy[i], x[i]) if backward else (x[i],))] for i in sets]
        bench.peer(sides, "torch", lambda: Rotation([partial(usual, *a) for a in arguments]))
        if bench.cuda and not backward and n >= _SIZES[-1]:  # each takes seconds to compile
            fast = compiled(usual)
            bench.peer(
                sides, "torch compile", lambda: Rotation([partial(fast, *a) for a in arguments])
            )
    rows = np.r_[0 : min(n, _CHECKED), max(n - _CHECKED, min(n, _CHECKED)) : n]

    def expected() -> Any:
        wide = host(x[0])[rows]
        if backward:
            return getattr(reference, f"{name}_backward")(host(dy[0])[rows], wide, **options)
        return getattr(reference, name)(wide, **options)

    contest = checked(bench, _ends(sides, rows), expected, TOLERANCE[dtype])
    return Contest(sides[OURS], {k: v for k, v in sides.items() if k != OURS}, contest.check)


def _ends(sides: dict[str, Call], rows: Any) -> dict[str, Call]:
    """Return sides whose result is only the part that is compared."""

    def part(call: Call) -> Call:
        first = call.calls[0] if isinstance(call, Rotation) else call
        return lambda: host(first())[rows]

    return {name: part(call) for name, call in sides.items()}


def _torch(name: str, options: dict[str, str], backward: bool) -> Any:
    aten, f = torch().ops.aten, torch().nn.functional
    if not backward:
        usual = getattr(torch(), name, None) or getattr(f, name)
        return partial(usual, **options) if options else usual
    if name == "relu":
        return lambda dy, x: aten.threshold_backward(dy, x, 0)
    if name == "tanh":  # torch takes the derivative from y; both start from x here
        return lambda dy, x: aten.tanh_backward(dy, torch().tanh(x))
    kernel = getattr(aten, f"{name}_backward")
    return lambda dy, x: kernel(dy, x, **options)
