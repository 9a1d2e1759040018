# SPDX-License-Identifier: MIT
"""Losses of a difference: squared and absolute."""

from __future__ import annotations

from typing import Any

from ..backends import of
from ._operands import Array, Operand, Scalar, Wrt


def mse_loss(
    input: Operand,
    target: Operand,
    reduction: str = "mean",
    weight: Operand | None = None,
    *,
    out: Array | None = None,
) -> Array | Scalar:
    """Return the squared error between input and target.

    Math: loss = w (input - target)^2; mean: the sum over n, or over sum of w where given

    Args:
        input: float32, float64, bfloat16, on a device float16, any shape; of 16 bits only results
            are rounded. Strided operands are packed into workspace.
        target: dtype of input; its shape and input's broadcast.
        reduction: "mean", "sum" or "none". A mean over nothing is NaN.
        weight: A factor for each element, input's shape and dtype, or None; target must then
            broadcast to input's shape. A weighted mean divides by the sum of weight.
        out: C-contiguous array for the loss.

    Returns:
        A scalar; for "none" an array of the broadcast shape.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> float(tg.mse_loss(np.array([1.0, 2.0]), np.array([0.0, 5.0])))
        5.0

    Source: torch.nn.functional.mse_loss
    """
    loss: Array | Scalar = of(input).mse_loss(
        input, target, None, weight, 0.0, False, False, reduction, out
    )
    return loss


def mse_loss_backward(
    grad_output: Operand | float,
    input: Operand,
    target: Operand,
    reduction: str = "mean",
    weight: Operand | None = None,
    *,
    wrt: Wrt | None = None,
    out: Any = None,
) -> Any:
    """Differentiate `mse_loss`.

    Math: dinput = 2 g w (input - target), dtarget = -dinput, each summed over the axes along which
        it was broadcast; g is grad_output, over the divisor of a mean

    Args:
        grad_output: Gradient of the loss: a scalar, or for "none" an array of the loss's shape.
        input: As in `mse_loss`. Strided operands are packed into workspace.
        target: As in `mse_loss`.
        reduction: As in the forward call.
        weight: As in `mse_loss`. It has no gradient.
        wrt: "input", "target" or a tuple of them. Default: "input".
        out: An array for one name, a tuple in input order for several.

    Returns:
        The gradient for one name, a tuple in input order for several.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.mse_loss_backward(1.0, np.array([1.0, 2.0]), np.array([0.0, 5.0])).tolist()
        [1.0, -3.0]
    """
    return of(input).mse_loss_backward(
        grad_output, input, target, None, weight, 0.0, False, False, reduction, wrt, out
    )


def mse_loss_value_and_grad(
    input: Operand,
    target: Operand,
    reduction: str = "mean",
    weight: Operand | None = None,
    *,
    wrt: Wrt | None = None,
) -> tuple[Any, Any]:
    """Return the loss of `mse_loss` and its gradient from one pass.

    Math: as in `mse_loss` and `mse_loss_backward`, with a grad_output of one

    Args:
        input: As in `mse_loss`. Strided operands are packed into workspace.
        target: As in `mse_loss`.
        reduction: As in `mse_loss`; for "none" grad_output is an array of ones.
        weight: As in `mse_loss`.
        wrt: "input", "target" or a tuple of them. Default: "input".

    Returns:
        `(loss, gradient)`, the gradient in the form of `mse_loss_backward`.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> loss, dx = tg.mse_loss_value_and_grad(np.array([1.0, 2.0]), np.array([0.0, 5.0]))
        >>> float(loss), dx.tolist()
        (5.0, [1.0, -3.0])
    """
    pair: tuple[Any, Any] = of(input).mse_loss_value_and_grad(
        input, target, None, weight, 0.0, False, False, reduction, wrt
    )
    return pair


def l1_loss(
    input: Operand,
    target: Operand,
    reduction: str = "mean",
    weight: Operand | None = None,
    *,
    out: Array | None = None,
) -> Array | Scalar:
    """Return the absolute error between input and target.

    Math: loss = w |input - target|; mean: the sum over n, or over sum of w where given

    Args:
        input: float32, float64, bfloat16, on a device float16, any shape; of 16 bits only results
            are rounded. Strided operands are packed into workspace.
        target: dtype of input; its shape and input's broadcast.
        reduction: "mean", "sum" or "none". A mean over nothing is NaN.
        weight: A factor for each element, input's shape and dtype, or None; target must then
            broadcast to input's shape. A weighted mean divides by the sum of weight.
        out: C-contiguous array for the loss.

    Returns:
        A scalar; for "none" an array of the broadcast shape.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> float(tg.l1_loss(np.array([1.0, 2.0]), np.array([0.0, 5.0])))
        2.0

    Source: torch.nn.functional.l1_loss
    """
    loss: Array | Scalar = of(input).l1_loss(
        input, target, None, weight, 0.0, False, False, reduction, out
    )
    return loss


def l1_loss_backward(
    grad_output: Operand | float,
    input: Operand,
    target: Operand,
    reduction: str = "mean",
    weight: Operand | None = None,
    *,
    wrt: Wrt | None = None,
    out: Any = None,
) -> Any:
    """Differentiate `l1_loss`.

    Math: dinput = g w sign(input - target), 0 at a tie, dtarget = -dinput, each summed over the
        axes along which it was broadcast; g is grad_output, over the divisor of a mean

    Args:
        grad_output: Gradient of the loss: a scalar, or for "none" an array of the loss's shape.
        input: As in `l1_loss`. Strided operands are packed into workspace.
        target: As in `l1_loss`.
        reduction: As in the forward call.
        weight: As in `l1_loss`. It has no gradient.
        wrt: "input", "target" or a tuple of them. Default: "input".
        out: An array for one name, a tuple in input order for several.

    Returns:
        The gradient for one name, a tuple in input order for several.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.l1_loss_backward(1.0, np.array([1.0, 2.0]), np.array([0.0, 5.0])).tolist()
        [0.5, -0.5]
    """
    return of(input).l1_loss_backward(
        grad_output, input, target, None, weight, 0.0, False, False, reduction, wrt, out
    )


def l1_loss_value_and_grad(
    input: Operand,
    target: Operand,
    reduction: str = "mean",
    weight: Operand | None = None,
    *,
    wrt: Wrt | None = None,
) -> tuple[Any, Any]:
    """Return the loss of `l1_loss` and its gradient from one pass.

    Math: as in `l1_loss` and `l1_loss_backward`, with a grad_output of one

    Args:
        input: As in `l1_loss`. Strided operands are packed into workspace.
        target: As in `l1_loss`.
        reduction: As in `l1_loss`; for "none" grad_output is an array of ones.
        weight: As in `l1_loss`.
        wrt: "input", "target" or a tuple of them. Default: "input".

    Returns:
        `(loss, gradient)`, the gradient in the form of `l1_loss_backward`.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> loss, dx = tg.l1_loss_value_and_grad(np.array([1.0, 2.0]), np.array([0.0, 5.0]))
        >>> float(loss), dx.tolist()
        (2.0, [0.5, -0.5])
    """
    pair: tuple[Any, Any] = of(input).l1_loss_value_and_grad(
        input, target, None, weight, 0.0, False, False, reduction, wrt
    )
    return pair
