# SPDX-License-Identifier: MIT
"""Matrix products in all four transpositions, skinny ones of small batches, bfloat16."""

from __future__ import annotations

import importlib
from functools import cache, partial
from typing import Any

import numpy as np

import tilegrad as tg
from tilegrad.bench.cases import MATMUL, MatmulCase
from tilegrad.bench.environment import jax, torch
from tilegrad.bench.harness import Call, Case, Contest

from ._common import FLOAT, Array, contest, empty, jitted, random, tensors

_LARGEST_TT = 2048  # the largest take seconds a call: three transpositions will do
_CHECKED_WHOLE = 1024**3  # multiplications
_HALF = 2  # bytes of a bfloat16
_HALF_SIZES = (64, 128, 256, 512, 1024)
_QUICK = {"128 NN", "512 NT", "1024 NN", "4x512x512 NT"}


def cases() -> list[Case]:
    """Return the cases: C = A B with A as stored (N) or transposed (T), then B."""
    result = []
    timed = [c for c in MATMUL if c.timed]
    timed.sort(key=lambda c: (not c.m == c.n == c.k, c.flops))  # square ones first
    for shape in timed:
        square = shape.m == shape.n == shape.k
        layouts = ("NN", "NT", "TN", "TT")
        for layout in layouts if square and shape.m <= _LARGEST_TT else layouts[:3]:
            name = f"{shape.m if square else shape} {layout}"
            build = partial(_build, shape, layout)
            result.append(
                Case("matmul", name, shape.bytes(FLOAT), shape.flops, build, name in _QUICK)
            )
    if _bfloat16() is not None:
        for size in _HALF_SIZES:
            shape = MatmulCase(size, size, size)
            name = f"{size} NN bf16"
            result.append(
                Case("matmul", name, shape.bytes(_HALF), shape.flops, partial(_build_half, size))
            )
    return result


@cache
def _bfloat16() -> Any:
    """Return NumPy's bfloat16, or None where it or tilegrad's product of it is missing."""
    try:
        kind = importlib.import_module("ml_dtypes").bfloat16
        tg.matmul(np.ones((1, 1), kind), np.ones((1, 1), kind))
    except (ImportError, TypeError):
        return None
    return kind


def _build(shape: MatmulCase, layout: str) -> Contest:
    m, n, k = shape.m, shape.n, shape.k
    turn_a, turn_b = (letter == "T" for letter in layout)
    stored_a = random("a", *((k, m) if turn_a else (m, k)))
    stored_b = random("b", *((n, k) if turn_b else (k, n)))
    a, b = (stored_a.T if turn_a else stored_a), (stored_b.T if turn_b else stored_b)
    out, out_numpy, out_torch = empty(m, n), empty(m, n), empty(m, n)
    # of large results every 17th row is checked: each float64 product would take seconds
    rows = slice(None, None, 17 if m * n * k > _CHECKED_WHOLE else 1)
    peers: dict[str, Call] = {"numpy": lambda: np.matmul(a, b, out=out_numpy)}
    if (pt := torch()) is not None:
        ta, tb, tout = tensors(a, b, out_torch)
        peers["torch"] = lambda: pt.mm(ta, tb, out=tout)
    if jax() is not None:

        def product(a: Any, b: Any) -> Any:
            return jax().numpy.matmul(a.T if turn_a else a, b.T if turn_b else b)

        peers["jax"] = jitted(product, stored_a, stored_b)
    return contest(
        lambda: tg.matmul(stored_a, stored_b, transpose_a=turn_a, transpose_b=turn_b, out=out),
        peers,
        lambda: a[rows].astype(np.float64) @ b.astype(np.float64),
        pick=lambda result: result[rows],
    )


def _build_half(size: int) -> Contest:
    kind = _bfloat16()
    a, b = (random(name, size, size).astype(kind) for name in "ab")
    out, out_torch = np.zeros_like(a), np.zeros_like(a)

    def wide(array: Array) -> Array:
        return array.astype(np.float64)

    peers: dict[str, Call] = {}
    if (pt := torch()) is not None:
        bits = tensors(*(array.view(np.int16) for array in (a, b, out_torch)))
        ta, tb, tout = (tensor.view(pt.bfloat16) for tensor in bits)
        peers["torch"] = lambda: pt.mm(ta, tb, out=tout)
    if jax() is not None:
        peers["jax"] = jitted(jax().numpy.matmul, a, b)

    return contest(
        lambda: tg.matmul(a, b, out=out),
        peers,
        lambda: wide(a) @ wide(b),
        2**-8,  # a result has eight bits
    )
