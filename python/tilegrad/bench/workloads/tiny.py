# SPDX-License-Identifier: MIT
"""Calls so small that only what surrounds the arithmetic counts; no share of a limit."""

from __future__ import annotations

from functools import partial

import tilegrad as tg
from tilegrad import reference
from tilegrad.bench.environment import torch
from tilegrad.bench.harness import Call, Case, Contest

from . import cross_entropy, train_step
from ._common import FLOAT, contest, random, tensors

_CLASSES = 10
_SIZES = (8, 8, 2)


def cases() -> list[Case]:
    """Return the cases: a layer, a loss with its gradient, a whole training step."""
    name = f"cross_entropy 1x{_CLASSES} value and grad"
    label = "-".join(map(str, _SIZES))
    return [
        Case("tiny", "linear 1x8->8", FLOAT * (8 + 64 + 8 + 8), 136, _linear, True, False),
        Case("tiny", name, FLOAT * 2 * _CLASSES + 8, 6 * _CLASSES,
             partial(cross_entropy.build, 1, _CLASSES), True, False),
        train_step.case(f"{label} SGD step batch 1", _SIZES, 1, "SGD",
                        family="tiny", quick=True, limited=False),
    ]  # fmt: skip


def _linear() -> Contest:
    x, w, b = random("x", 1, 8), random("weight", 8, 8), random("bias", 8)
    peers: dict[str, Call] = {"numpy": lambda: x @ w.T + b}
    if (pt := torch()) is not None:
        tx, tw, tb = tensors(x, w, b)
        layer, wt = pt.nn.functional.linear, tw.t()
        peers["torch"] = lambda: layer(tx, tw, tb)
        peers["torch addmm"] = lambda: pt.addmm(tb, tx, wt)
    return contest(lambda: tg.linear(x, w, b), peers, lambda: reference.linear(x, w, b))
