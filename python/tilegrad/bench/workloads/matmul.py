# SPDX-License-Identifier: MIT
"""Matrix products in all four transpositions, and the skinny ones of small batches."""

from __future__ import annotations

from functools import partial

import numpy as np

import tilegrad as tg
from tilegrad.bench.cases import MATMUL, MatmulCase
from tilegrad.bench.environment import torch
from tilegrad.bench.harness import Call, Case, Contest

from ._common import FLOAT, contest, empty, random, tensors

_LARGEST = 2048  # larger ones take long and tell nothing new
_QUICK = {"128 NN", "512 NT", "1024 NN", "4x512x512 NT"}


def cases() -> list[Case]:
    """Return the cases: C = A B with A as stored (N) or transposed (T), then B."""
    result = []
    timed = [c for c in MATMUL if c.timed and max(c.m, c.n, c.k) <= _LARGEST]
    timed.sort(key=lambda c: (not c.m == c.n == c.k, c.flops))  # square ones first
    for shape in timed:
        square = shape.m == shape.n == shape.k
        for layout in ("NN", "NT", "TN", "TT") if square else ("NN", "NT", "TN"):
            name = f"{shape.m if square else shape} {layout}"
            build = partial(_build, shape, layout)
            result.append(
                Case("matmul", name, shape.bytes(FLOAT), shape.flops, build, name in _QUICK)
            )
    return result


def _build(shape: MatmulCase, layout: str) -> Contest:
    m, n, k = shape.m, shape.n, shape.k
    turn_a, turn_b = (letter == "T" for letter in layout)
    stored_a = random("a", *((k, m) if turn_a else (m, k)))
    stored_b = random("b", *((n, k) if turn_b else (k, n)))
    a, b = (stored_a.T if turn_a else stored_a), (stored_b.T if turn_b else stored_b)
    out, out_numpy, out_torch = empty(m, n), empty(m, n), empty(m, n)
    peers: dict[str, Call] = {"numpy": lambda: np.matmul(a, b, out=out_numpy)}
    if (pt := torch()) is not None:
        ta, tb, tout = tensors(a, b, out_torch)
        peers["torch"] = lambda: pt.mm(ta, tb, out=tout)
    return contest(
        lambda: tg.matmul(stored_a, stored_b, transpose_a=turn_a, transpose_b=turn_b, out=out),
        peers,
        lambda: a.astype(np.float64) @ b.astype(np.float64),
    )
