# SPDX-License-Identifier: MIT
"""Matrix products."""

from __future__ import annotations

from typing import Any

from ..backends import of
from ._operands import Array, Operand, Scalar, Wrt


def matmul(
    a: Operand,
    b: Operand,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    variant: str | None = None,
    out: Array | None = None,
) -> Array | Scalar:
    """Multiply matrices, or batches of them, by NumPy's rules.

    A one-dimensional `a` is a row and a one-dimensional `b` a column; that axis is left out of the
    result. Axes before the last two are a batch and broadcast. Any strides are read in place: no
    operand is copied.

    Math: c[..., i, j] = sum_p a[..., i, p] b[..., p, j]

    Args:
        a: `(..., m, k)`, with `transpose_a` `(..., k, m)`, or `(k,)`; float32, float64 or
            bfloat16.
        b: `(..., k, n)`, with `transpose_b` `(..., n, k)`, or `(k,)`; dtype of `a`.
        transpose_a: Swap the last two axes of `a` first.
        transpose_b: Swap the last two axes of `b` first.
        variant: On cuda and sim, the rung of the matmul ladder to run, such as "shared" or
            "tensor_core"; None lets shape, dtype and device choose, and for float32
            `set_float32_matmul_precision`.
        out: C-contiguous array for the result; it must not overlap an operand.

    Returns:
        `(..., m, n)`; a scalar for two vectors.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If sizes do not fit, a vector is to be transposed, there is no such variant,
            or it cannot do this problem on this device; the text says why.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> a = np.array([[1.0, 2.0], [3.0, 4.0]])
        >>> tg.matmul(a, np.array([1.0, 10.0])).tolist()
        [21.0, 43.0]
        >>> tg.matmul(a, a, transpose_b=True).tolist()
        [[5.0, 11.0], [11.0, 25.0]]

    Source: numpy.matmul, torch.matmul
    """
    result: Array | Scalar = of(a).matmul(a, b, transpose_a, transpose_b, variant, out)
    return result


def matmul_backward(
    grad_output: Operand | float,
    a: Operand,
    b: Operand,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    wrt: Wrt | None = None,
    out: Any = None,
) -> Any:
    """Differentiate `matmul`.

    Math: da = dc b^T, db = a^T dc, each transposed back where the forward call transposed, and
        summed over the batch axes along which it was broadcast

    Args:
        grad_output: Gradient of the result, its shape and dtype; strided: packed into workspace.
        a: As in the forward call.
        b: As in the forward call.
        transpose_a: As in the forward call.
        transpose_b: As in the forward call.
        wrt: "a", "b" or a tuple of them. Default: both.
        out: An array for one name, a tuple of arrays in the order (a, b) for several.

    Returns:
        The gradient for one name, a tuple in the order (a, b) for several; shapes of a and b.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If sizes do not fit, or `wrt` names another input.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> a, b = np.array([[1.0, 2.0]]), np.array([[3.0], [5.0]])
        >>> da, db = tg.matmul_backward(np.array([[10.0]]), a, b)
        >>> da.tolist(), db.tolist()
        ([[30.0, 50.0]], [[10.0], [20.0]])
    """
    return of(a).matmul_backward(grad_output, a, b, transpose_a, transpose_b, wrt, out)
