# SPDX-License-Identifier: MIT
"""Negative log likelihood."""

from __future__ import annotations

from typing import Any

from ..backends import of
from ._operands import Array, Operand, Scalar, Wrt


def nll_loss(
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    *,
    out: Array | None = None,
) -> Array | Scalar:
    """Return the negative logarithm of the probability of the target classes.

    Math: loss = -w_t input_t at the row's class t; mean: the sum over sum of w_t of the rows that
        are not ignored

    Args:
        input: Logarithms of probabilities `(C,)`, `(N, C)` or `(N, C, d1, ...)`, float32 or
            float64. Strided operands are packed into workspace.
        target: Class indices in [0, C), input's shape without C, any integer dtype.
        weight: `(C,)`, a factor for each class, or None.
        ignore_index: A class index whose rows count for nothing.
        reduction: "mean", "sum" or "none". A mean over nothing is NaN.
        out: C-contiguous array for the loss.

    Returns:
        A scalar; for "none" an array, input's shape without C.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, an option is unknown or out of range, or a class index is
            (on a device its row has a NaN loss and a gradient of zero instead).

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> log_p = np.log(np.array([[0.88, 0.12], [0.5, 0.5]]))
        >>> tg.nll_loss(log_p, np.array([0, 1]), reduction="none").round(6).tolist()
        [0.127833, 0.693147]

    Source: torch.nn.functional.nll_loss
    """
    loss: Array | Scalar = of(input).nll_loss(input, target, weight, ignore_index, reduction, out)
    return loss


def nll_loss_backward(
    grad_output: Operand | float,
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `nll_loss`.

    Math: dinput_t = -g w_t with g the grad_output of the row, over the divisor of a mean; 0 at
        every other class and in a row that is ignored

    Args:
        grad_output: Gradient of the loss: a scalar, or for "none" an array of the loss's shape.
        input: As in the forward call. Strided operands are packed into workspace.
        target: As in the forward call; it has no gradient.
        weight: As in the forward call; it has no gradient.
        ignore_index: As in the forward call.
        reduction: As in the forward call.
        wrt: "input", the only choice; a tuple of it returns a tuple.
        out: C-contiguous array for the gradient.

    Returns:
        The gradient of input, its shape and dtype.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, an option is unknown or out of range, or a class index is
            (on a device its row has a NaN loss and a gradient of zero instead).

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.nll_loss_backward(1.0, np.zeros((2, 3)), np.array([2, 0])).tolist()
        [[0.0, 0.0, -0.5], [-0.5, 0.0, 0.0]]
    """
    gradient: Array = of(input).nll_loss_backward(
        grad_output, input, target, weight, ignore_index, reduction, wrt, out
    )
    return gradient


def nll_loss_value_and_grad(
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
) -> tuple[Any, Any]:
    """Return the loss of `nll_loss` and its gradient from one call.

    Math: as in `nll_loss` and `nll_loss_backward`, with a grad_output of one

    Args:
        input: As in `nll_loss`. Strided operands are packed into workspace.
        target: As in `nll_loss`.
        weight: As in `nll_loss`.
        ignore_index: As in `nll_loss`.
        reduction: As in `nll_loss`; for "none" grad_output is an array of ones.
        wrt: As in `nll_loss_backward`.

    Returns:
        `(loss, gradient)`, the gradient in the form of `nll_loss_backward`.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, an option is unknown or out of range, or a class index is
            (on a device its row has a NaN loss and a gradient of zero instead).

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> loss, dx = tg.nll_loss_value_and_grad(np.array([-1.0, -3.0]), np.array(1))
        >>> float(loss), dx.tolist()
        (3.0, [0.0, -1.0])
    """
    pair: tuple[Any, Any] = of(input).nll_loss_value_and_grad(
        input, target, weight, ignore_index, reduction, wrt
    )
    return pair
