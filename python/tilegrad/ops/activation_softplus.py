# SPDX-License-Identifier: MIT
"""Activations: the smooth maximum of 0 and x, and what is built on it."""

from __future__ import annotations

from ..backends import of
from ._operands import Array, Operand, Wrt, in_place


def softplus(
    input: Operand, beta: float = 1.0, threshold: float = 20.0, *, out: Array | None = None
) -> Array:
    """Round off the corner of `relu`.

    Math: y = log(1 + exp(beta x)) / beta, and x where beta x > threshold

    Args:
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        beta: Sharpness of the bend: the result tends to relu as it grows.
        threshold: Where beta x is above it the result is x.
        out: C-contiguous array for the result; it may be input.

    Returns:
        The result: input's shape and dtype.

    Raises:
        TypeError: If input or `out` is no array of a supported dtype.
        ValueError: If `out` has another shape or overlaps input in part.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.softplus(np.array([-np.inf, 0.0, 30.0])).round(6).tolist()
        [0.0, 0.693147, 30.0]

    Source: Dugas et al.: Incorporating second-order functional knowledge ... (2001)
    """
    result: Array = of(input).softplus(input, beta, threshold, out)
    return result


def softplus_backward(
    grad_output: Operand,
    input: Operand,
    beta: float = 1.0,
    threshold: float = 20.0,
    *,
    output: Operand | None = None,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `softplus`.

    Math: dx = dy / (1 + exp(-beta x)), and dy where beta x > threshold

    Args:
        grad_output: Gradient of the result, input's shape and dtype.
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        beta: As in the forward call.
        threshold: As in the forward call.
        output: Taken as in every activation; not needed here.
        wrt: "input", the only choice; a tuple of it returns a tuple.
        out: C-contiguous array for the result; it may be an operand.

    Returns:
        The gradient of input, its shape and dtype.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes differ, or `wrt` names another input.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.softplus_backward(np.array([4.0]), np.array([0.0])).tolist()
        [2.0]
    """
    result: Array = of(input).softplus_backward(
        grad_output, input, beta, threshold, output, wrt, out
    )
    return result


def mish(input: Operand, inplace: bool = False, *, out: Array | None = None) -> Array:
    """Multiply each element by the tanh of its softplus.

    Math: y = x tanh(log(1 + exp(x)))

    Args:
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        inplace: Write the result to input, which is then C-contiguous.
        out: C-contiguous array for the result; it may be input.

    Returns:
        The result: input's shape and dtype.

    Raises:
        TypeError: If input or `out` is no array of a supported dtype.
        ValueError: If `out` has another shape or overlaps input in part.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.mish(np.array([-20.0, 0.0, 20.0])).round(6).tolist()
        [-0.0, 0.0, 20.0]

    Source: Misra: Mish, a self regularized non-monotonic activation function (2019)
    """
    if inplace:
        out = in_place("mish", input, out)
    result: Array = of(input).mish(input, out)
    return result


def mish_backward(
    grad_output: Operand,
    input: Operand,
    *,
    output: Operand | None = None,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `mish`.

    Math: dx = dy (t + x s (1 - t^2)), t = tanh(softplus(x)), s = sigmoid(x)

    Args:
        grad_output: Gradient of the result, input's shape and dtype.
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        output: Taken as in every activation; not needed here.
        wrt: "input", the only choice; a tuple of it returns a tuple.
        out: C-contiguous array for the result; it may be an operand.

    Returns:
        The gradient of input, its shape and dtype.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes differ, or `wrt` names another input.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.mish_backward(np.array([1.0]), np.array([0.0])).tolist()
        [0.6]
    """
    result: Array = of(input).mish_backward(grad_output, input, output, wrt, out)
    return result
