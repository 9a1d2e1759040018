# SPDX-License-Identifier: MIT
"""What is timed on a GPU, one file a family: real shapes, our call and torch's.

Operands are random normal numbers that both sides share through DLPack; results that a side can
write to memory made before go there. Every case is also small enough to run on the simulator when
`Workbench.tiny` shrinks its shapes, which is how the tests run it.
"""

from __future__ import annotations

from tilegrad.bench.device import Workbench
from tilegrad.bench.harness import Case

from . import (
    activation,
    cross_entropy,
    cross_entropy_options,
    dropout,
    fused_mlp,
    host,
    linear,
    matmul,
    optim,
    softmax,
    train_step,
)

FAMILIES = (
    matmul, linear, activation, dropout, softmax, cross_entropy, cross_entropy_options, optim,
    train_step, fused_mlp, host,
)  # fmt: skip


def all_cases(bench: Workbench) -> list[Case]:
    """Return every case on a workbench; nothing is allocated yet.

    Example:
        >>> cases = all_cases(Workbench())
        >>> len({case.id for case in cases}) == len(cases)
        True
    """
    cases = {case.id: case for family in FAMILIES for case in family.cases(bench)}
    return list(cases.values())
