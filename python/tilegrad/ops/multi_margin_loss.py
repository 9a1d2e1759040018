# SPDX-License-Identifier: MIT
"""The hinge loss of several classes, one of which is right."""

from __future__ import annotations

from typing import Any

from ..backends import of
from ._operands import Array, Operand, Scalar, Wrt


def multi_margin_loss(
    input: Operand,
    target: Operand,
    p: int = 1,
    margin: float = 1.0,
    weight: Operand | None = None,
    reduction: str = "mean",
    *,
    out: Array | None = None,
) -> Array | Scalar:
    """Return by how much wrong classes come within a margin of the right one.

    Math: loss = w_t / C sum over c != t of max(0, margin - input_t + input_c)^p; mean: over the
        number of rows. As in torch a margin that is NaN counts for nothing; so a NaN score does not
        show

    Args:
        input: Scores `(C,)` or `(N, C)`, float32 or float64. Strided operands are packed into
            workspace.
        target: Class indices in [0, C), `(N,)` (for one row also a scalar), any integer dtype.
        p: Power of each margin, 1 or 2.
        margin: By which the right score should exceed the others.
        weight: `(C,)`, a factor for each class, or None.
        reduction: "mean", "sum" or "none". A mean over nothing is NaN.
        out: C-contiguous array for the loss.

    Returns:
        A scalar; for "none" an array of target's shape.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, an option is unknown or out of range, or a class index is
            (on a device its row has a NaN loss and a gradient of zero instead).

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x = np.array([[0.0, 1.0, 3.0], [2.0, 0.5, 0.0]])
        >>> tg.multi_margin_loss(x, np.array([1, 0]), reduction="none").tolist()
        [1.0, 0.0]

    Source: torch.nn.functional.multi_margin_loss
    """
    loss: Array | Scalar = of(input).multi_margin_loss(
        input, target, p, margin, weight, reduction, out
    )
    return loss


def multi_margin_loss_backward(
    grad_output: Operand | float,
    input: Operand,
    target: Operand,
    p: int = 1,
    margin: float = 1.0,
    weight: Operand | None = None,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `multi_margin_loss`.

    Math: dinput_c = g w_t / C p max(0, z_c)^(p - 1) where z_c = margin - input_t + input_c > 0, and
        dinput_t minus their sum; g is grad_output, over the divisor of a mean

    Args:
        grad_output: Gradient of the loss: a scalar, or for "none" an array of the loss's shape.
        input: As in the forward call. Strided operands are packed into workspace.
        target: As in the forward call; it has no gradient.
        p: As in the forward call.
        margin: As in the forward call.
        weight: As in the forward call; it has no gradient.
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
        >>> x = np.array([[0.0, 1.0, 3.0, 0.5]])
        >>> tg.multi_margin_loss_backward(4.0, x, np.array([1])).tolist()
        [[0.0, -2.0, 1.0, 1.0]]
    """
    gradient: Array = of(input).multi_margin_loss_backward(
        grad_output, input, target, p, margin, weight, reduction, wrt, out
    )
    return gradient


def multi_margin_loss_value_and_grad(
    input: Operand,
    target: Operand,
    p: int = 1,
    margin: float = 1.0,
    weight: Operand | None = None,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
) -> tuple[Any, Any]:
    """Return the loss of `multi_margin_loss` and its gradient from one call.

    Math: as in `multi_margin_loss` and `multi_margin_loss_backward`, with a grad_output of one

    Args:
        input: As in `multi_margin_loss`. Strided operands are packed into workspace.
        target: As in `multi_margin_loss`.
        p: As in `multi_margin_loss`.
        margin: As in `multi_margin_loss`.
        weight: As in `multi_margin_loss`.
        reduction: As in `multi_margin_loss`; for "none" grad_output is an array of ones.
        wrt: As in `multi_margin_loss_backward`.

    Returns:
        `(loss, gradient)`, the gradient in the form of `multi_margin_loss_backward`.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, an option is unknown or out of range, or a class index is
            (on a device its row has a NaN loss and a gradient of zero instead).

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x = np.array([[0.0, 0.5]])
        >>> loss, dx = tg.multi_margin_loss_value_and_grad(x, np.array([0]), p=2)
        >>> float(loss), dx.tolist()
        (1.125, [[-1.5, 1.5]])
    """
    pair: tuple[Any, Any] = of(input).multi_margin_loss_value_and_grad(
        input, target, p, margin, weight, reduction, wrt
    )
    return pair
