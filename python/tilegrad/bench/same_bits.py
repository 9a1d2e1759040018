# SPDX-License-Identifier: MIT
"""Whether a call gives the same bits twice, found on the device, so that large results may be."""

from __future__ import annotations

from typing import Any

import numpy as np

import tilegrad as tg

from .environment import torch
from .harness import Call

# Families whose calls move on a state: of parameters, or of the random numbers.
STATEFUL = frozenset({"dropout", "optim", "train_step"})


def same_bits(call: Call) -> bool:
    """Run a call twice and compare all that it returns, bit for bit.

    Example:
        >>> import itertools
        >>> same_bits(lambda: np.ones(3)), same_bits(itertools.count().__next__)
        (True, False)
    """
    first = [_kept(part) for part in _parts(call())]  # a copy: the second call may write there too
    second = [_kept(part) for part in _parts(call())]
    return len(first) == len(second) and all(map(_equal, first, second))


def _parts(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def _kept(part: Any) -> Any:
    if part is None:
        return None
    pt = torch()
    if pt is not None and isinstance(part, tg.Array):
        copy = pt.from_dlpack(part).clone().contiguous()
        kinds = {1: pt.uint8, 2: pt.int16, 4: pt.int32, 8: pt.int64}
        return copy.view(kinds[copy.element_size()])
    host = part.numpy() if isinstance(part, tg.Array) else np.asarray(part)
    return np.ascontiguousarray(host).reshape(-1).view(np.uint8).copy()


def _equal(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    return bool(torch().equal(a, b))
