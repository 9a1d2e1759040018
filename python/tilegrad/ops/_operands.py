# SPDX-License-Identifier: MIT
"""What the public functions share: types of operands, and options that all of them read alike."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray


class SupportsDLPack(Protocol):
    """An array of another library, read without a copy."""

    def __dlpack__(self, *, stream: Any = ...) -> Any: ...
    def __dlpack_device__(self) -> tuple[Any, int]: ...


Array: TypeAlias = NDArray[Any]
Operand: TypeAlias = NDArray[Any] | np.generic | SupportsDLPack
Scalar: TypeAlias = np.floating[Any]
Wrt: TypeAlias = str | tuple[str, ...] | list[str]


def in_place(op: str, input: Any, out: Any) -> Any:
    """Return the array that a call with `inplace=True` writes to: its input.

    Args:
        op: Name for the error text.
        input: The operand.
        out: The caller's `out`.

    Returns:
        The operand.

    Raises:
        ValueError: If `out` is another array.

    Example:
        >>> x = np.ones(2)
        >>> in_place("relu", x, None) is x
        True
    """
    if out is not None and out is not input:
        raise ValueError(f"{op}: inplace=True writes to input; leave out `out`, or pass input")
    return input
