# SPDX-License-Identifier: MIT
"""Losses that are quadratic near zero and linear beyond."""

from __future__ import annotations

from typing import Any

from ..backends import of
from ._operands import Array, Operand, Scalar, Wrt


def smooth_l1_loss(
    input: Operand,
    target: Operand,
    reduction: str = "mean",
    beta: float = 1.0,
    *,
    out: Array | None = None,
) -> Array | Scalar:
    """Return the absolute error, smooth near zero.

    Math: with d = input - target: d^2 / (2 beta) where |d| < beta, else |d| - beta / 2

    Args:
        input: float32, float64, bfloat16, on a device float16, any shape; of 16 bits only results
            are rounded. Strided operands are packed into workspace.
        target: dtype of input; its shape and input's broadcast.
        reduction: "mean", "sum" or "none". A mean over nothing is NaN.
        beta: Where the two pieces meet, at least 0; 0 is `l1_loss`.
        out: C-contiguous array for the loss.

    Returns:
        A scalar; for "none" an array of the broadcast shape.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, beta is negative, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, t = np.array([0.0, 4.0]), np.array([1.0, 1.0])
        >>> tg.smooth_l1_loss(x, t, "none", beta=2.0).tolist()
        [0.25, 2.0]

    Source: Girshick 2015, arXiv:1504.08083; torch.nn.functional.smooth_l1_loss
    """
    loss: Array | Scalar = of(input).smooth_l1_loss(
        input, target, None, None, beta, False, False, reduction, out
    )
    return loss


def smooth_l1_loss_backward(
    grad_output: Operand | float,
    input: Operand,
    target: Operand,
    reduction: str = "mean",
    beta: float = 1.0,
    *,
    wrt: Wrt | None = None,
    out: Any = None,
) -> Any:
    """Differentiate `smooth_l1_loss`.

    Math: dinput = g d / beta where |d| < beta, else g sign(d); dtarget = -dinput, each summed over
        the axes along which it was broadcast; g is grad_output, over n for a mean

    Args:
        grad_output: Gradient of the loss: a scalar, or for "none" an array of the loss's shape.
        input: As in `smooth_l1_loss`. Strided operands are packed into workspace.
        target: As in `smooth_l1_loss`.
        reduction: As in the forward call.
        beta: As in `smooth_l1_loss`.
        wrt: "input", "target" or a tuple of them. Default: "input".
        out: An array for one name, a tuple in input order for several.

    Returns:
        The gradient for one name, a tuple in input order for several.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, beta is negative, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, t = np.array([0.0, 4.0]), np.array([1.0, 1.0])
        >>> tg.smooth_l1_loss_backward(1.0, x, t, "sum", beta=2.0).tolist()
        [-0.5, 1.0]
    """
    return of(input).smooth_l1_loss_backward(
        grad_output, input, target, None, None, beta, False, False, reduction, wrt, out
    )


def smooth_l1_loss_value_and_grad(
    input: Operand,
    target: Operand,
    reduction: str = "mean",
    beta: float = 1.0,
    *,
    wrt: Wrt | None = None,
) -> tuple[Any, Any]:
    """Return the loss of `smooth_l1_loss` and its gradient from one pass.

    Math: as in `smooth_l1_loss` and `smooth_l1_loss_backward`, with a grad_output of one

    Args:
        input: As in `smooth_l1_loss`. Strided operands are packed into workspace.
        target: As in `smooth_l1_loss`.
        reduction: As in `smooth_l1_loss`; for "none" grad_output is an array of ones.
        beta: As in `smooth_l1_loss`.
        wrt: "input", "target" or a tuple of them. Default: "input".

    Returns:
        `(loss, gradient)`, the gradient in the form of `smooth_l1_loss_backward`.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, beta is negative, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, t = np.array([0.0, 4.0]), np.array([1.0, 1.0])
        >>> loss, dx = tg.smooth_l1_loss_value_and_grad(x, t, "sum", beta=2.0)
        >>> float(loss), dx.tolist()
        (2.25, [-0.5, 1.0])
    """
    pair: tuple[Any, Any] = of(input).smooth_l1_loss_value_and_grad(
        input, target, None, None, beta, False, False, reduction, wrt
    )
    return pair


def huber_loss(
    input: Operand,
    target: Operand,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Operand | None = None,
    *,
    out: Array | None = None,
) -> Array | Scalar:
    """Return the squared error, linear where it is large.

    Math: with d = input - target: w d^2 / 2 where |d| < delta, else w delta (|d| - delta / 2)

    Args:
        input: float32, float64, bfloat16, on a device float16, any shape; of 16 bits only results
            are rounded. Strided operands are packed into workspace.
        target: dtype of input; its shape and input's broadcast.
        reduction: "mean", "sum" or "none". A mean over nothing is NaN.
        delta: Where the two pieces meet, above 0.
        weight: A factor for each element, input's shape and dtype, or None; target must then
            broadcast to input's shape. A mean divides by n with it too, as torch.
        out: C-contiguous array for the loss.

    Returns:
        A scalar; for "none" an array of the broadcast shape.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, delta is not positive, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, t = np.array([0.0, 4.0]), np.array([1.0, 1.0])
        >>> tg.huber_loss(x, t, "none", delta=2.0).tolist()
        [0.5, 4.0]

    Source: Huber 1964; torch.nn.functional.huber_loss
    """
    loss: Array | Scalar = of(input).huber_loss(
        input, target, None, weight, delta, False, False, reduction, out
    )
    return loss


def huber_loss_backward(
    grad_output: Operand | float,
    input: Operand,
    target: Operand,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Operand | None = None,
    *,
    wrt: Wrt | None = None,
    out: Any = None,
) -> Any:
    """Differentiate `huber_loss`.

    Math: dinput = g w d within -delta and delta, else g w delta sign(d); dtarget = -dinput, each
        summed over the axes along which it was broadcast; g is grad_output, over n for a mean

    Args:
        grad_output: Gradient of the loss: a scalar, or for "none" an array of the loss's shape.
        input: As in `huber_loss`. Strided operands are packed into workspace.
        target: As in `huber_loss`.
        reduction: As in the forward call.
        delta: As in `huber_loss`.
        weight: As in `huber_loss`. It has no gradient.
        wrt: "input", "target" or a tuple of them. Default: "input".
        out: An array for one name, a tuple in input order for several.

    Returns:
        The gradient for one name, a tuple in input order for several.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, delta is not positive, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, t = np.array([0.0, 4.0]), np.array([1.0, 1.0])
        >>> tg.huber_loss_backward(1.0, x, t, "sum", delta=2.0).tolist()
        [-1.0, 2.0]
    """
    return of(input).huber_loss_backward(
        grad_output, input, target, None, weight, delta, False, False, reduction, wrt, out
    )


def huber_loss_value_and_grad(
    input: Operand,
    target: Operand,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Operand | None = None,
    *,
    wrt: Wrt | None = None,
) -> tuple[Any, Any]:
    """Return the loss of `huber_loss` and its gradient from one pass.

    Math: as in `huber_loss` and `huber_loss_backward`, with a grad_output of one

    Args:
        input: As in `huber_loss`. Strided operands are packed into workspace.
        target: As in `huber_loss`.
        reduction: As in `huber_loss`; for "none" grad_output is an array of ones.
        delta: As in `huber_loss`.
        weight: As in `huber_loss`.
        wrt: "input", "target" or a tuple of them. Default: "input".

    Returns:
        `(loss, gradient)`, the gradient in the form of `huber_loss_backward`.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, delta is not positive, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, t = np.array([0.0, 4.0]), np.array([1.0, 1.0])
        >>> loss, dx = tg.huber_loss_value_and_grad(x, t, "sum", delta=2.0)
        >>> float(loss), dx.tolist()
        (4.5, [-1.0, 2.0])
    """
    pair: tuple[Any, Any] = of(input).huber_loss_value_and_grad(
        input, target, None, weight, delta, False, False, reduction, wrt
    )
    return pair
