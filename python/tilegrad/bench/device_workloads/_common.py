# SPDX-License-Identifier: MIT
"""What the workloads share: sizes, dtypes and errors that mean "not here"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tilegrad.bench.device import LeftOut, Workbench, first_line, tensor
from tilegrad.bench.environment import torch

SHORT = {"float32": "f32", "float64": "f64", "bfloat16": "bf16", "float16": "f16"}


def size(bench: Workbench, n: int) -> int:
    """Return a size, or for trying out a small one that crosses a tile edge as n does.

    Example:
        >>> size(Workbench(), 4096), size(Workbench(tiny=True), 4096)
        (4096, 65)
    """
    return n if not bench.tiny or n <= 16 else 64 + n % 5


@contextmanager
def unless_missing(bench: Workbench) -> Iterator[None]:
    """Turn the refusal of a variant or a dtype by the backend into `LeftOut`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        text = first_line(error)
        if "variant" in text or "dtype" in text or "float16" in text:
            raise LeftOut(text) from None
        raise


def tensors(*arrays: Any) -> list[Any]:
    """Return torch's tensors over the memory of arrays of tilegrad."""
    return [tensor(array) for array in arrays]


def compiled(function: Any) -> Any:
    """Return a function compiled by torch for one shape.

    What was compiled before is forgotten: after some variants of one function torch would run the
    next one uncompiled, without a word.
    """
    torch().compiler.reset()

    def plain(*args: Any) -> Any:
        return function(*args)

    return torch().compile(plain, dynamic=False)
