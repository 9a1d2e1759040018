# SPDX-License-Identifier: MIT
"""Matrix products of networks in use, odd ones beside them, and every rung of the ladder."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tilegrad as tg
from tilegrad.bench import gpu_model
from tilegrad.bench.device import (
    ITEM,
    TOLERANCE,
    Workbench,
    checked,
    host,
    rotating,
    some_rows,
    tensor,
)
from tilegrad.bench.environment import torch
from tilegrad.bench.harness import OURS, Call, Case, Contest

from ._common import SHORT, size, unless_missing

# (m, n, k, layout): A and B as stored (N) or transposed (T). NT is a layer's forward product, NN
# its input gradient, TN its weight gradient.
_SQUARE = [(s, s, s, way) for s in (512, 1024, 2048, 4096, 8192) for way in ("NN", "NT", "TN")]
_LAYERS = [
    (128, 512, 784, "NT"), (128, 512, 512, "NT"), (128, 10, 512, "NT"), (512, 784, 128, "TN"),
    (65536, 512, 784, "NT"), (65536, 512, 512, "NN"), (512, 512, 65536, "TN"),
    (4096, 12288, 4096, "NT"), (4096, 14336, 4096, "NT"), (4096, 4096, 14336, "NT"),
    (4096, 4096, 14336, "NN"), (14336, 4096, 4096, "TN"), (8192, 28672, 8192, "NT"),
    (8192, 16384, 4096, "NT"), (8192, 4096, 16384, "NN"), (16384, 4096, 8192, "TN"),
    (4096, 32000, 4096, "NT"), (2048, 50257, 768, "NT"), (8192, 3072, 768, "NT"),
]  # fmt: skip
_FEW_ROWS = [(1, 4096, 4096, "NT"), (8, 4096, 14336, "NT"), (64, 8192, 8192, "NT")]
_ODD = [
    (1000, 1000, 1000, "NN"), (1023, 1025, 1027, "NT"), (4095, 4097, 4099, "NN"),
    (4095, 4097, 4099, "TN"), (8191, 8191, 8191, "NT"), (333, 777, 5001, "NT"),
]  # fmt: skip
SHAPES = [*_SQUARE, *_LAYERS, *_FEW_ROWS, *_ODD]
_FEWER = [s for s in SHAPES if s[0] * s[1] * s[2] <= 4099**3 or s[0] == 8192 == s[1]]
_BY_DTYPE = {"bfloat16": SHAPES, "float32": _FEWER, "float16": [*_SQUARE[6:], *_FEW_ROWS, *_ODD]}
_QUICK = {(4096, 4096, 4096, "NN"), (128, 512, 512, "NT"), (4095, 4097, 4099, "NN")}

RUNGS = (
    "naive", "coalesced", "shared", "tile_1d", "tile_2d", "vectorized", "double_buffered",
    "warp_tile", "tensor_core", "hopper", "tf32x3", "hopper_tf32",
)  # fmt: skip
_LADDER = {
    "float32": (*RUNGS[:9], *RUNGS[10:]),  # hopper's tiles are of 16-bit numbers
    "bfloat16": ("naive", "coalesced", "shared", "tensor_core", "hopper"),
}
# rungs that round their operands to tf32
_TF32 = {("float32", "tensor_core"), ("float32", "hopper_tf32")}
_TF32_TOLERANCE = 3e-3


def cases(bench: Workbench) -> list[Case]:
    """Return the products as a call chooses their kernel, then each rung by name."""
    result = []
    for dtype, shapes in _BY_DTYPE.items():
        for shape in shapes:
            m, n, k = (size(bench, part) for part in shape[:3])
            name = f"{m}x{n}x{k} {shape[3]} {SHORT[dtype]}"
            quick = dtype != "float16" and shape in _QUICK
            result.append(_case(bench, "matmul", name, (m, n, k), shape[3], dtype, None, quick))
    for dtype, rungs in _LADDER.items():
        for rung in rungs:
            for s in (1024, 4096):
                n = size(bench, s) // 8 * 8  # as hopper needs it
                name = f"{rung} {n} {SHORT[dtype]}"
                quick = s == 4096 and rung in ("shared", "warp_tile", "hopper")
                result.append(
                    _case(bench, "matmul_ladder", name, (n, n, n), "NN", dtype, rung, quick)
                )
    return result


def _case(
    bench: Workbench,
    family: str,
    name: str,
    sizes: tuple[int, int, int],
    layout: str,
    dtype: str,
    rung: str | None,
    quick: bool,
) -> Case:
    m, n, k = sizes
    moved = ITEM[dtype] * (m * k + k * n + m * n)
    build = partial(_build, bench, sizes, layout, dtype, rung, moved)
    predicted = (
        gpu_model.ladder(rung, n, dtype) if rung else gpu_model.product(m, n, k, dtype, layout)
    )
    return Case(family, name, moved, 2.0 * m * n * k, build, quick, predicted=predicted)


def _build(
    bench: Workbench,
    sizes: tuple[int, int, int],
    layout: str,
    dtype: str,
    rung: str | None,
    moved: int,
) -> Contest:
    m, n, k = sizes
    turn_a, turn_b = (letter == "T" for letter in layout)
    sets = range(bench.sets(moved))
    a = [bench.normal(dtype, *((k, m) if turn_a else (m, k))) for _ in sets]
    b = [bench.normal(dtype, *((n, k) if turn_b else (k, n))) for _ in sets]
    c = [bench.empty(dtype, m, n) for _ in sets]

    def ours(i: int) -> Call:
        return lambda: tg.matmul(
            a[i], b[i], transpose_a=turn_a, transpose_b=turn_b, variant=rung, out=c[i]
        )

    makes = {OURS: ours}
    if (pt := torch()) is not None:
        tf32 = (dtype, rung) in _TF32
        c_torch = [bench.empty(dtype, m, n) for _ in sets]

        def theirs(i: int) -> Call:
            ta, tb, tc = tensor(a[i]), tensor(b[i]), tensor(c_torch[i])
            ta, tb = (ta.t() if turn_a else ta), (tb.t() if turn_b else tb)

            def call() -> Any:
                pt.backends.cuda.matmul.allow_tf32 = tf32
                return pt.mm(ta, tb, out=tc)

            return call

        makes["torch tf32" if tf32 else "torch"] = theirs
    with unless_missing(bench):
        ours(0)()
    rows = some_rows(m)
    return checked(
        bench,
        rotating(makes, len(sets)),
        lambda: [(_product(a[0], b[0], turn_a, turn_b, rows), rows)],
        _TF32_TOLERANCE if (dtype, rung) in _TF32 else TOLERANCE[dtype],
    )


def _product(a: Any, b: Any, turn_a: bool, turn_b: bool, rows: NDArray[Any]) -> NDArray[Any]:
    """Return some rows of the product in float64; on the device where torch can do that."""
    if (pt := torch()) is not None:
        ta, tb = tensor(a), tensor(b)
        index = pt.from_numpy(rows).to(ta.device)
        part = (ta.t() if turn_a else ta).index_select(0, index).double()
        return host(part @ (tb.t() if turn_b else tb).double())
    wide, other = host(a), host(b)
    return np.asarray((wide.T if turn_a else wide)[rows] @ (other.T if turn_b else other))
