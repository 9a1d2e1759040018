# SPDX-License-Identifier: MIT
"""The divergence of two distributions."""

from __future__ import annotations

from typing import Any

from ..backends import of
from ._operands import Array, Operand, Scalar, Wrt


def kl_div(
    input: Operand,
    target: Operand,
    reduction: str = "mean",
    log_target: bool = False,
    *,
    out: Array | None = None,
) -> Array | Scalar:
    """Return the terms of the Kullback-Leibler divergence of target from input.

    Math: t (log t - input) with 0 log 0 = 0; t is target, or exp(target) where log_target

    Args:
        input: Logarithms of probabilities; float32, float64, bfloat16, on a device float16, any
            shape; of 16 bits only results are rounded. Strided operands are packed into workspace.
        target: Probabilities, or their logarithms; dtype of input; its shape and input's broadcast.
        reduction: "mean", "sum", "none", or "batchmean": the sum over input's first size, which is
            the divergence itself. A mean over nothing is NaN.
        log_target: Whether target holds logarithms.
        out: C-contiguous array for the loss.

    Returns:
        A scalar; for "none" an array of the broadcast shape.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x = np.log(np.array([[0.25, 0.75]]))
        >>> t = np.array([[0.5, 0.5]])
        >>> print(round(float(tg.kl_div(x, t, "batchmean")), 6))  # log(4 / 3) / 2
        0.143841

    Source: Kullback, Leibler 1951; torch.nn.functional.kl_div
    """
    loss: Array | Scalar = of(input).kl_div(
        input, target, None, None, 0.0, log_target, False, reduction, out
    )
    return loss


def kl_div_backward(
    grad_output: Operand | float,
    input: Operand,
    target: Operand,
    reduction: str = "mean",
    log_target: bool = False,
    *,
    wrt: Wrt | None = None,
    out: Any = None,
) -> Any:
    """Differentiate `kl_div`.

    Math: dinput = -g t; dtarget = g (log t + 1 - input), NaN where t is 0, as in torch, or g t
        (target - input + 1) where log_target, each summed over the axes along which it was
        broadcast; g is grad_output, over the divisor of a mean

    Args:
        grad_output: Gradient of the loss: a scalar, or for "none" an array of the loss's shape.
        input: As in `kl_div`. Strided operands are packed into workspace.
        target: As in `kl_div`.
        reduction: As in the forward call.
        log_target: As in `kl_div`.
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
        >>> x = np.log(np.array([[0.25, 0.75]]))
        >>> tg.kl_div_backward(1.0, x, np.array([[0.5, 0.5]]), "batchmean").tolist()
        [[-0.5, -0.5]]
    """
    return of(input).kl_div_backward(
        grad_output, input, target, None, None, 0.0, log_target, False, reduction, wrt, out
    )


def kl_div_value_and_grad(
    input: Operand,
    target: Operand,
    reduction: str = "mean",
    log_target: bool = False,
    *,
    wrt: Wrt | None = None,
) -> tuple[Any, Any]:
    """Return the loss of `kl_div` and its gradient from one pass.

    Math: as in `kl_div` and `kl_div_backward`, with a grad_output of one

    Args:
        input: As in `kl_div`. Strided operands are packed into workspace.
        target: As in `kl_div`.
        reduction: As in `kl_div`; for "none" grad_output is an array of ones.
        log_target: As in `kl_div`.
        wrt: "input", "target" or a tuple of them. Default: "input".

    Returns:
        `(loss, gradient)`, the gradient in the form of `kl_div_backward`.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x = np.log(np.array([[0.25, 0.75]]))
        >>> loss, dx = tg.kl_div_value_and_grad(x, np.array([[0.5, 0.5]]), "batchmean")
        >>> round(float(loss), 6), dx.tolist()
        (0.143841, [[-0.5, -0.5]])
    """
    pair: tuple[Any, Any] = of(input).kl_div_value_and_grad(
        input, target, None, None, 0.0, log_target, False, reduction, wrt
    )
    return pair
