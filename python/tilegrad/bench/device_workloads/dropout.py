# SPDX-License-Identifier: MIT
"""Dropout, whose mask is drawn again in the backward pass: both read one array and write one."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import tilegrad as tg
from tilegrad.bench import gpu_model
from tilegrad.bench.device import ITEM, Rotation, Workbench, host, rotating, tensor
from tilegrad.bench.environment import torch
from tilegrad.bench.harness import OURS, Call, Case, Contest

from ._common import size

_SIZES = (1 << 22, 100_000_000)  # the first is 16 MiB
_P = 0.25
_CHECKED = 200_000
_WORDS = 60  # operations for four random words


def cases(bench: Workbench) -> list[Case]:
    """Return the cases; each side draws its own mask."""
    result = []
    for elements in _SIZES:
        n = size(bench, elements)
        moved = 2 * ITEM["float32"] * n
        work = _WORDS / 4 * n
        predicted = gpu_model.stream(moved / 2, moved / 2, packets=4, flops=2 * work)
        build = partial(_build, bench, n, moved)
        result.append(Case("dropout", f"dropout {n} f32", moved, work, build, predicted=predicted))
    return result


def _build(bench: Workbench, n: int, moved: float) -> Contest:
    sets = range(bench.sets(moved))
    x = [bench.normal("float32", n) for _ in sets]
    out = [bench.empty("float32", n) for _ in sets]

    def ours(i: int) -> Call:
        return lambda: tg.dropout(x[i], _P, out=out[i])

    sides = rotating({OURS: ours}, len(sets))
    if torch() is not None:
        usual = partial(torch().nn.functional.dropout, p=_P, training=True)
        tensors = [tensor(part) for part in x]
        bench.peer(sides, "torch", lambda: Rotation([partial(usual, part) for part in tensors]))

    def check() -> None:
        wide = host(x[0])[:_CHECKED]
        for name, side in sides.items():
            first: Any = side.calls[0] if isinstance(side, Rotation) else side
            got = host(first())[:_CHECKED]
            kept = got != 0
            off = np.abs(got[kept] - wide[kept] / (1 - _P)).max(initial=0)
            assert off <= 1e-6 * np.abs(wide).max(), f"{name}: kept elements are off by {off:.2g}"
            share, sigma = kept.mean(), (_P * (1 - _P) / len(wide)) ** 0.5
            assert abs(share - (1 - _P)) < 6 * sigma, f"{name}: {share:.3f} of all are kept"

    return Contest(sides[OURS], {k: v for k, v in sides.items() if k != OURS}, check)
