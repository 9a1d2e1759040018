# SPDX-License-Identifier: MIT
"""Softmax and its logarithm, over any axis."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .._makers import from_dlpack, host_dtype
from ..array import Array as DeviceArray
from ..backends import of
from ._operands import Array, Operand, Wrt

_FLOATS = ("float32", "float64", "bfloat16")


def _floating(op: str, dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype that an option names."""
    try:
        return np.dtype(host_dtype(dtype))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{op}: dtype must be float32, float64 or bfloat16; got {dtype!r}"
        ) from error


def _on_host(op: str, input: Any) -> Any:
    """Return an array or scalar of NumPy's, or another library's tensor as one of its memory."""
    if isinstance(input, (np.ndarray, np.generic)):
        return input
    if not hasattr(input, "__dlpack__"):
        raise TypeError(f"{op}: input must be an array; got {type(input).__name__}")
    try:
        return from_dlpack(input)
    except Exception as error:
        raise TypeError(f"{op}: input could not be read through DLPack: {error}") from error


def _cast(op: str, input: Any, dtype: DTypeLike) -> Any:
    """Return input as an array of a floating dtype (itself if it has that dtype)."""
    wanted = _floating(op, dtype)
    if wanted.name not in _FLOATS:
        raise TypeError(f"{op}: dtype must be float32, float64 or bfloat16; got {wanted}")
    if isinstance(input, DeviceArray):
        if input.dtype_name != wanted.name:
            raise TypeError(f"{op}: an Array is not cast on its device; got dtype={wanted}")
        return input
    input = _on_host(op, input)
    try:
        array = isinstance(input, np.ndarray)
        return input.astype(wanted, copy=False) if array else wanted.type(input)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{op}: input of {input.dtype} cannot be cast to {wanted}") from error


def _backward_in_dtype(
    op: str,
    grad_output: Any,
    input: Any,
    dim: int,
    dtype: DTypeLike,
    output: Any,
    wrt: Any,
    out: Any,
) -> Any:
    """Differentiate a softmax that cast its input first: compute in dtype, cast the result back."""
    backward = getattr(of(input), op)
    if isinstance(input, DeviceArray):
        return backward(grad_output, _cast(op, input, dtype), dim, output, wrt, out)
    own = _on_host(op, input).dtype
    wanted = _floating(op, dtype)
    if own == wanted:
        return backward(grad_output, input, dim, output, wrt, out)
    if own.name not in _FLOATS:
        raise TypeError(f"{op}: input must have dtype float32, float64 or bfloat16; got {own}")
    if out is not None:
        raise ValueError(f"{op}: out needs dtype to be input's; got {wanted}, not {own}")
    gradient = backward(grad_output, _cast(op, input, dtype), dim, output, wrt, None)
    if isinstance(gradient, tuple):
        return (gradient[0].astype(own),)
    return gradient.astype(own)


def softmax(
    input: Operand, dim: int, *, dtype: DTypeLike | None = None, out: Array | None = None
) -> Array:
    """Turn the elements along an axis into positive shares with sum 1.

    Math: y_c = exp(x_c - m) / sum_k exp(x_k - m), m = max_k x_k

    Args:
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        dim: The axis to normalise, negative from the end.
        dtype: Cast input to this dtype first.
        out: C-contiguous array for the result; it may be input.

    Returns:
        The shares: input's shape; its dtype, or the given one. A row of -inf alone gives NaN.

    Raises:
        TypeError: If input or `out` is no array of a supported dtype.
        ValueError: If `dim` is out of range, or `out` does not fit.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.softmax(np.log(np.array([1.0, 2.0, 5.0])), 0).round(6).tolist()
        [0.125, 0.25, 0.625]

    Source: torch.nn.functional.softmax
    """
    if dtype is not None:
        input = _cast("softmax", input, dtype)
    result: Array = of(input).softmax(input, dim, out)
    return result


def softmax_backward(
    grad_output: Operand,
    input: Operand,
    dim: int,
    *,
    dtype: DTypeLike | None = None,
    output: Operand | None = None,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `softmax`.

    Math: dx_c = y_c (dy_c - sum_k dy_k y_k)

    Args:
        grad_output: Gradient of the result, its shape and dtype. Strided operands are packed.
        input: As in the forward call.
        dim: As in the forward call.
        dtype: As in the forward call.
        output: The forward result, if kept: spares computing it again.
        wrt: "input", the only choice; a tuple of it returns a tuple.
        out: C-contiguous array for the result; it may be grad_output or output.

    Returns:
        The gradient of input, its shape and dtype.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes differ, or an option is out of range.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.softmax_backward(np.array([4.0, 0.0]), np.zeros(2), 0).tolist()
        [1.0, -1.0]
    """
    if dtype is not None:
        cast: Array = _backward_in_dtype(
            "softmax_backward", grad_output, input, dim, dtype, output, wrt, out
        )
        return cast
    result: Array = of(input).softmax_backward(grad_output, input, dim, output, wrt, out)
    return result


def log_softmax(
    input: Operand, dim: int, *, dtype: DTypeLike | None = None, out: Array | None = None
) -> Array:
    """Return the logarithm of `softmax`, exact where the shares themselves would underflow.

    Math: y_c = x_c - m - log sum_k exp(x_k - m), m = max_k x_k

    Args:
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        dim: The axis to normalise, negative from the end.
        dtype: Cast input to this dtype first.
        out: C-contiguous array for the result; it may be input.

    Returns:
        The logarithms: input's shape; its dtype, or the given one. A row of -inf alone gives NaN.

    Raises:
        TypeError: If input or `out` is no array of a supported dtype.
        ValueError: If `dim` is out of range, or `out` does not fit.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.log_softmax(np.array([1000.0, 0.0]), 0).tolist()
        [0.0, -1000.0]

    Source: torch.nn.functional.log_softmax
    """
    if dtype is not None:
        input = _cast("log_softmax", input, dtype)
    result: Array = of(input).log_softmax(input, dim, out)
    return result


def log_softmax_backward(
    grad_output: Operand,
    input: Operand,
    dim: int,
    *,
    dtype: DTypeLike | None = None,
    output: Operand | None = None,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `log_softmax`.

    Math: dx_c = dy_c - softmax(x)_c sum_k dy_k

    Args:
        grad_output: Gradient of the result, its shape and dtype. Strided operands are packed.
        input: As in the forward call.
        dim: As in the forward call.
        dtype: As in the forward call.
        output: The forward result, if kept: spares computing it again.
        wrt: "input", the only choice; a tuple of it returns a tuple.
        out: C-contiguous array for the result; it may be grad_output or output.

    Returns:
        The gradient of input, its shape and dtype.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes differ, or an option is out of range.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.log_softmax_backward(np.array([4.0, 0.0]), np.zeros(2), 0).round(9).tolist()
        [2.0, -2.0]
    """
    if dtype is not None:
        cast: Array = _backward_in_dtype(
            "log_softmax_backward", grad_output, input, dim, dtype, output, wrt, out
        )
        return cast
    result: Array = of(input).log_softmax_backward(grad_output, input, dim, output, wrt, out)
    return result
