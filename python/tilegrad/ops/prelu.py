# SPDX-License-Identifier: MIT
"""The parametric relu, whose slope is learned."""

from __future__ import annotations

from typing import Any

from ..backends import of
from ._operands import Array, Operand, Wrt


def prelu(input: Operand, weight: Operand, *, out: Array | None = None) -> Array:
    """Multiply negative elements by a learned slope.

    Math: y = x if x > 0 else w[c] x, c the position along the second axis

    Args:
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        weight: The slopes below 0: one for all, or a vector of one for each channel, input's
            second axis. Input's dtype.
        out: C-contiguous array for the result; it may be input.

    Returns:
        The result: input's shape and dtype.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If weight's size is neither 1 nor that of the second axis, or `out` has another
            shape or overlaps an operand in part.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.prelu(np.array([[-4.0, -4.0]]), np.array([0.25, 0.5])).tolist()
        [[-1.0, -2.0]]

    Source: He, Zhang, Ren, Sun: Delving deep into rectifiers (2015)
    """
    result: Array = of(input).prelu(input, weight, out)
    return result


def prelu_backward(
    grad_output: Operand,
    input: Operand,
    weight: Operand,
    *,
    wrt: Wrt | None = None,
    out: Any = None,
) -> Any:
    """Differentiate `prelu`; at 0 the slope below it counts, as in torch.

    Math: dx = dy if x > 0 else w[c] dy; dw[c] = sum of x dy over the x <= 0 of channel c

    Args:
        grad_output: Gradient of the result, input's shape and dtype.
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        weight: As in the forward call.
        wrt: "input", "weight" or a tuple of them; default both.
        out: C-contiguous array for the result, or a tuple of them; that of input may be an operand.

    Returns:
        The gradients that `wrt` names, each of its input's shape and dtype: one array for one name,
        else a tuple in input order. Sums are taken in float32 or wider.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes differ, or `wrt` names another input.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> dx, dw = tg.prelu_backward(np.ones(3), np.array([-4.0, -2.0, 1.0]), np.array([0.25]))
        >>> dx.tolist(), dw.tolist()
        ([0.25, 0.25, 1.0], [-6.0])
    """
    return of(input).prelu_backward(grad_output, input, weight, wrt, False, out)
