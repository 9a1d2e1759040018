# SPDX-License-Identifier: MIT
"""Losses of several labels a row."""

from __future__ import annotations

from typing import Any

from ..backends import of
from ._operands import Array, Operand, Scalar, Wrt


def multilabel_margin_loss(
    input: Operand,
    target: Operand,
    reduction: str = "mean",
    *,
    out: Array | None = None,
) -> Array | Scalar:
    """Return by how much other classes come within a margin of 1 of those listed.

    Math: loss = 1 / C sum over the listed t and the c not listed of max(0, 1 - input_t + input_c);
        mean: over the number of rows. As in torch a margin that is NaN counts for nothing

    Args:
        input: Scores `(C,)` or `(N, C)`, float32 or float64. Strided operands are packed into
            workspace.
        target: Like input, any integer dtype: the row's classes, then -1 where there are fewer than
            C; what follows the first -1 is not read, but must be in [-1, C). A class that occurs
            twice counts twice.
        reduction: "mean", "sum" or "none". A mean over nothing is NaN.
        out: C-contiguous array for the loss.

    Returns:
        A scalar; for "none" an array of a value for each row.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, an option is unknown or out of range, or a class index is
            (on a device its row has a NaN loss and a gradient of zero instead).

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x = np.array([[0.0, 0.5, 2.0, 0.0]])
        >>> float(tg.multilabel_margin_loss(x, np.array([[2, 1, -1, 0]])))
        0.25

    Source: torch.nn.functional.multilabel_margin_loss
    """
    loss: Array | Scalar = of(input).multilabel_margin_loss(input, target, reduction, out)
    return loss


def multilabel_margin_loss_backward(
    grad_output: Operand | float,
    input: Operand,
    target: Operand,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `multilabel_margin_loss`.

    Math: dinput_c = g / C times the number of listed t with 1 - input_t + input_c > 0 for a c not
        listed, and dinput_t = -g / C times the number of such c; g is grad_output, over the divisor
        of a mean

    Args:
        grad_output: Gradient of the loss: a scalar, or for "none" an array of the loss's shape.
        input: As in the forward call. Strided operands are packed into workspace.
        target: As in the forward call; it has no gradient.
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
        >>> x, t = np.array([[0.0, 0.5, 2.0, 0.0]]), np.array([[2, 1, -1, 0]])
        >>> tg.multilabel_margin_loss_backward(4.0, x, t).tolist()
        [[1.0, -2.0, 0.0, 1.0]]
    """
    gradient: Array = of(input).multilabel_margin_loss_backward(
        grad_output, input, target, reduction, wrt, out
    )
    return gradient


def multilabel_margin_loss_value_and_grad(
    input: Operand,
    target: Operand,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
) -> tuple[Any, Any]:
    """Return the loss of `multilabel_margin_loss` and its gradient from one call.

    Math: as in `multilabel_margin_loss` and `multilabel_margin_loss_backward`, with a grad_output
        of one

    Args:
        input: As in `multilabel_margin_loss`. Strided operands are packed into workspace.
        target: As in `multilabel_margin_loss`.
        reduction: As in `multilabel_margin_loss`; for "none" grad_output is an array of ones.
        wrt: As in `multilabel_margin_loss_backward`.

    Returns:
        `(loss, gradient)`, the gradient in the form of `multilabel_margin_loss_backward`.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, an option is unknown or out of range, or a class index is
            (on a device its row has a NaN loss and a gradient of zero instead).

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, t = np.array([1.0, 0.5]), np.array([0, -1])
        >>> loss, dx = tg.multilabel_margin_loss_value_and_grad(x, t)
        >>> float(loss), dx.tolist()
        (0.25, [-0.5, 0.5])
    """
    pair: tuple[Any, Any] = of(input).multilabel_margin_loss_value_and_grad(
        input, target, reduction, wrt
    )
    return pair


def multilabel_soft_margin_loss(
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    reduction: str = "mean",
    *,
    out: Array | None = None,
) -> Array | Scalar:
    """Return the mean of the binary cross-entropies of a row's labels.

    Math: loss = -1 / C sum_c w_c (target_c log s(input_c) + (1 - target_c) log s(-input_c)), s the
        sigmoid; mean: over the number of rows. torch broadcasts input too; here it has the full
        shape

    Args:
        input: Scores `(C,)`, `(N, C)` or `(..., C)`, float32 or float64. Strided operands are
            packed into workspace.
        target: The share of each label, usually 0 or 1, of input's dtype; it broadcasts to input's
            shape.
        weight: A factor for each label, `(C,)` or what else broadcasts to input's shape, or None.
        reduction: "mean", "sum" or "none". A mean over nothing is NaN.
        out: C-contiguous array for the loss.

    Returns:
        A scalar; for "none" an array of a value for each row.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or an option is unknown or out of range.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x = np.array([[0.0, 0.0]])
        >>> round(float(tg.multilabel_soft_margin_loss(x, np.array([[0.0, 1.0]]))), 6)
        0.693147

    Source: torch.nn.functional.multilabel_soft_margin_loss
    """
    loss: Array | Scalar = of(input).multilabel_soft_margin_loss(
        input, target, weight, reduction, out
    )
    return loss


def multilabel_soft_margin_loss_backward(
    grad_output: Operand | float,
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
    out: Any = None,
) -> Any:
    """Differentiate `multilabel_soft_margin_loss`.

    Math: dinput = g w / C ((1 - target) s(input) - target s(-input)), dtarget = -g w / C input,
        summed over the axes along which target was broadcast; g is grad_output, over the divisor of
        a mean

    Args:
        grad_output: Gradient of the loss: a scalar, or for "none" an array of the loss's shape.
        input: As in the forward call. Strided operands are packed into workspace.
        target: As in the forward call.
        weight: As in the forward call; it has no gradient.
        reduction: As in the forward call.
        wrt: "input", "target" or a tuple of them. Default: "input".
        out: An array for one name, a tuple in the order (input, target) for several.

    Returns:
        The gradient for one name, a tuple in the order (input, target) for several.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or an option is unknown or out of range.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, t = np.zeros((1, 2)), np.array([[0.0, 1.0]])
        >>> tg.multilabel_soft_margin_loss_backward(1.0, x, t).tolist()
        [[0.25, -0.25]]
    """
    return of(input).multilabel_soft_margin_loss_backward(
        grad_output, input, target, weight, reduction, wrt, out
    )


def multilabel_soft_margin_loss_value_and_grad(
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
) -> tuple[Any, Any]:
    """Return the loss of `multilabel_soft_margin_loss` and its gradients from one call.

    Math: as in `multilabel_soft_margin_loss` and `multilabel_soft_margin_loss_backward`, with a
        grad_output of one

    Args:
        input: As in `multilabel_soft_margin_loss`. Strided operands are packed into workspace.
        target: As in `multilabel_soft_margin_loss`.
        weight: As in `multilabel_soft_margin_loss`.
        reduction: As in `multilabel_soft_margin_loss`; for "none" grad_output is an array of ones.
        wrt: As in `multilabel_soft_margin_loss_backward`.

    Returns:
        `(loss, gradient)`, the gradient in the form of `multilabel_soft_margin_loss_backward`.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or an option is unknown or out of range.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, t = np.zeros(2), np.array([0.0, 1.0])
        >>> loss, dx = tg.multilabel_soft_margin_loss_value_and_grad(x, t)
        >>> round(float(loss), 6), dx.tolist()
        (0.693147, [0.25, -0.25])
    """
    pair: tuple[Any, Any] = of(input).multilabel_soft_margin_loss_value_and_grad(
        input, target, weight, reduction, wrt
    )
    return pair
