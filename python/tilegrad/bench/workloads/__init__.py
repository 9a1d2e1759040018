# SPDX-License-Identifier: MIT
"""What is timed, one file a family: shapes, bytes and operations, our call and the peers' calls.

Operands are random normal float32 numbers that start at a cache line and are shared by all sides.
Results go into arrays made before where a side can do that, so that no side pays for page faults
of fresh memory; where a peer has several ways, each is one and the fastest counts.
"""

from tilegrad.bench.harness import Case

from . import (
    activation,
    cross_entropy,
    fused_mlp,
    linear,
    losses,
    matmul,
    optim,
    predict,
    pytorch,
    softmax,
    tiny,
    train_step,
)

FAMILIES = (
    matmul, linear, fused_mlp, activation, softmax, cross_entropy, losses, optim, predict,
    train_step, tiny, pytorch,
)  # fmt: skip


def all_cases() -> list[Case]:
    """Return every case; nothing is allocated yet.

    Example:
        >>> len({case.id for case in all_cases()}) == len(all_cases())
        True
    """
    return [case for family in FAMILIES for case in family.cases()]
