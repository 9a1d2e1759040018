# SPDX-License-Identifier: MIT
"""tilegrad's operators inside PyTorch beside PyTorch's own: what a call costs, and what it gains.

The tiny cases are all overhead: the way through the dispatcher, autograd and Python; the last one
is an accelerated model's usual training step.
"""

from __future__ import annotations

import importlib.util
from functools import partial

from tilegrad import reference
from tilegrad.bench.environment import torch
from tilegrad.bench.harness import OURS, Case, Contest

from . import train_step
from ._common import FLOAT, contest, random, tensors

_ADAM = {"torch": {}, "torch foreach": {"foreach": True}, "torch fused": {"fused": True}}


def cases() -> list[Case]:
    """Return the cases; none where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return []
    found = [Case("pytorch", "linear 1x8->8", FLOAT * 88, 136, _forward, True, False)]
    for sizes, batch in (((8, 8, 2), 1), (train_step.SIZES, 32)):
        work = train_step.case("", sizes, batch, "Adam")
        found.append(
            Case("pytorch", f"{'-'.join(map(str, sizes))} Adam step batch {batch}", work.bytes,
                 work.flops, partial(_step, sizes, batch), batch == 1, False)
        )  # fmt: skip
    return found


def _forward() -> Contest:
    import tilegrad.torch as tt

    operands = random("x", 1, 8), random("weight", 8, 8), random("bias", 8)
    (x, w, b), layer = tensors(*operands), torch().nn.functional.linear
    return contest(
        lambda: tt.linear(x, w, b),
        {"torch": lambda: layer(x, w, b)},
        lambda: reference.linear(*operands),
    )


def _step(sizes: tuple[int, ...], batch: int) -> Contest:
    given = (*train_step.operands(sizes, batch), "Adam")
    made = {OURS: train_step.torch_eager(*given, {}, accelerated=True)}
    made |= {label: train_step.torch_eager(*given, how) for label, how in _ADAM.items()}
    sides = {label: call for label, (call, _) in made.items()}
    return train_step.race(sides, [slow for _, slow in made.values()], *given)
