# SPDX-License-Identifier: MIT
"""What the public functions share: types of operands, and options that all of them read alike."""

from __future__ import annotations

from collections.abc import Callable
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


def gradient_of_input(op: str, wrt: Any, out: Any, gradient: Callable[..., Any]) -> Any:
    """Return the gradient of an op with one differentiable input in the form that `wrt` asks for.

    Args:
        op: Name for the error text.
        wrt: "input", or a tuple or list that holds it.
        out: The caller's `out`, of the form that `wrt` asks for.
        gradient: Computes the gradient; takes `out`.

    Returns:
        The gradient for a name, a tuple of it for a tuple.

    Raises:
        TypeError: If `wrt` or `out` has the wrong type.
        ValueError: If another input is named, or none.

    Example:
        >>> gradient_of_input("relu_backward", ("input",), None, lambda out: 3.0)
        (3.0,)
    """
    if not isinstance(wrt, (str, tuple, list)):
        raise TypeError(f"{op}: wrt must be a name or a tuple of names; got {wrt!r}")
    names = {wrt} if isinstance(wrt, str) else set(wrt)
    if names != {"input"}:
        raise ValueError(f"{op}: wrt may name input; got {wrt!r}")
    if isinstance(wrt, str):
        return gradient(out=out)
    if out is None:
        return (gradient(out=None),)
    if not isinstance(out, tuple) or len(out) != 1:
        raise TypeError(f"{op}: out must be a tuple of one array, as wrt is a tuple")
    return (gradient(out=out[0]),)
