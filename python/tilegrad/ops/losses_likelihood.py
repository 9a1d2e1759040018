# SPDX-License-Identifier: MIT
"""Negative log-likelihoods."""

from __future__ import annotations

from typing import Any

from ..backends import of
from ._operands import Array, Operand, Scalar, Wrt


def poisson_nll_loss(
    input: Operand,
    target: Operand,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
    *,
    out: Array | None = None,
) -> Array | Scalar:
    """Return the negative log-likelihood of counts under Poisson's law.

    Math: exp(x) - t x, or x - t log(x + eps) where not log_input; full: t log t - t + log(2 pi t) /
        2 more where t > 1

    Args:
        input: The rate, or its logarithm; float32, float64, bfloat16, on a device float16, any
            shape; of 16 bits only results are rounded. Strided operands are packed into workspace.
        target: Counts; dtype of input; its shape and input's broadcast.
        log_input: Whether input is the logarithm of the rate.
        full: Whether to add Stirling's formula for log(target!) where target > 1.
        eps: Added to the rate in its logarithm where log_input is False.
        reduction: "mean", "sum" or "none". A mean over nothing is NaN.
        out: C-contiguous array for the loss.

    Returns:
        A scalar; for "none" an array of the broadcast shape.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> float(tg.poisson_nll_loss(np.array([0.0]), np.array([3.0])))
        1.0

    Source: torch.nn.functional.poisson_nll_loss
    """
    loss: Array | Scalar = of(input).poisson_nll_loss(
        input, target, None, None, eps, log_input, full, reduction, out
    )
    return loss


def poisson_nll_loss_backward(
    grad_output: Operand | float,
    input: Operand,
    target: Operand,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
    out: Any = None,
) -> Any:
    """Differentiate `poisson_nll_loss`.

    Math: dinput = g (exp(x) - t), or g (1 - t / (x + eps)); dtarget = -g x, or -g log(x + eps), and
        where full and t > 1 g (log t + 1 / (2 t)) more, each summed over the axes along which it
        was broadcast; g is grad_output, over n for a mean

    Where full, torch's gradient of a target of 0 is NaN; here it is that of the other terms.

    Args:
        grad_output: Gradient of the loss: a scalar, or for "none" an array of the loss's shape.
        input: As in `poisson_nll_loss`. Strided operands are packed into workspace.
        target: As in `poisson_nll_loss`.
        log_input: As in `poisson_nll_loss`.
        full: As in `poisson_nll_loss`.
        eps: As in `poisson_nll_loss`.
        reduction: As in the forward call.
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
        >>> tg.poisson_nll_loss_backward(1.0, np.array([0.0]), np.array([3.0])).tolist()
        [-2.0]
    """
    return of(input).poisson_nll_loss_backward(
        grad_output, input, target, None, None, eps, log_input, full, reduction, wrt, out
    )


def poisson_nll_loss_value_and_grad(
    input: Operand,
    target: Operand,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
) -> tuple[Any, Any]:
    """Return the loss of `poisson_nll_loss` and its gradient from one pass.

    Math: as in `poisson_nll_loss` and `poisson_nll_loss_backward`, with a grad_output of one

    Args:
        input: As in `poisson_nll_loss`. Strided operands are packed into workspace.
        target: As in `poisson_nll_loss`.
        log_input: As in `poisson_nll_loss`.
        full: As in `poisson_nll_loss`.
        eps: As in `poisson_nll_loss`.
        reduction: As in `poisson_nll_loss`; for "none" grad_output is an array of ones.
        wrt: "input", "target" or a tuple of them. Default: "input".

    Returns:
        `(loss, gradient)`, the gradient in the form of `poisson_nll_loss_backward`.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> loss, dx = tg.poisson_nll_loss_value_and_grad(np.array([0.0]), np.array([3.0]))
        >>> float(loss), dx.tolist()
        (1.0, [-2.0])
    """
    pair: tuple[Any, Any] = of(input).poisson_nll_loss_value_and_grad(
        input, target, None, None, eps, log_input, full, reduction, wrt
    )
    return pair


def gaussian_nll_loss(
    input: Operand,
    target: Operand,
    var: Operand | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
    *,
    out: Array | None = None,
) -> Array | Scalar:
    """Return the negative log-likelihood under a normal law with a given variance.

    Math: with v = max(var, eps): (log v + (input - target)^2 / v) / 2; full: log(2 pi) / 2 more

    Args:
        input: The mean; float32, float64, bfloat16, on a device float16, any shape; of 16 bits only
            results are rounded. Strided operands are packed into workspace.
        target: dtype of input; its shape and input's broadcast.
        var: The variance, at least 0, of input's dtype: input's shape, that without its last axis,
            or with 1 in place of one size; or one number.
        full: Whether to add the constant log(2 pi) / 2.
        eps: Lower bound of the variance.
        reduction: "mean", "sum" or "none". A mean over nothing is NaN.
        out: C-contiguous array for the loss.

    Returns:
        A scalar; for "none" an array of the broadcast shape.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, the reduction is unknown, or, on the cpu, a variance is
            negative. On a device the loss of such an element is NaN.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, t, var = np.array([1.0]), np.array([3.0]), np.array([1.0])
        >>> float(tg.gaussian_nll_loss(x, t, var))
        2.0

    Source: Nix, Weigend 1994; torch.nn.functional.gaussian_nll_loss
    """
    loss: Array | Scalar = of(input).gaussian_nll_loss(
        input, target, var, None, eps, False, full, reduction, out
    )
    return loss


def gaussian_nll_loss_backward(
    grad_output: Operand | float,
    input: Operand,
    target: Operand,
    var: Operand | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
    out: Any = None,
) -> Any:
    """Differentiate `gaussian_nll_loss`.

    Math: with d = input - target: dinput = g d / v, dtarget = -dinput, dvar = g (1 / v - (d / v)^2)
        / 2, also where var < eps, as in torch, each summed over the axes along which it was
        broadcast; g is grad_output, over n for a mean

    Args:
        grad_output: Gradient of the loss: a scalar, or for "none" an array of the loss's shape.
        input: As in `gaussian_nll_loss`. Strided operands are packed into workspace.
        target: As in `gaussian_nll_loss`.
        var: As in `gaussian_nll_loss`.
        full: As in `gaussian_nll_loss`.
        eps: As in `gaussian_nll_loss`.
        reduction: As in the forward call.
        wrt: "input", "target", "var" or a tuple of them. Default: ("input", "var"), or "input"
            where var is a number.
        out: An array for one name, a tuple in input order for several.

    Returns:
        The gradient for one name, a tuple in input order for several.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or an option is unknown. Variances are not looked at;
            where one is negative the gradients are NaN.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, t, var = np.array([1.0]), np.array([3.0]), np.array([1.0])
        >>> dx, dvar = tg.gaussian_nll_loss_backward(1.0, x, t, var)
        >>> dx.tolist(), dvar.tolist()
        ([-2.0], [-1.5])
    """
    return of(input).gaussian_nll_loss_backward(
        grad_output, input, target, var, None, eps, False, full, reduction, wrt, out
    )


def gaussian_nll_loss_value_and_grad(
    input: Operand,
    target: Operand,
    var: Operand | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
) -> tuple[Any, Any]:
    """Return the loss of `gaussian_nll_loss` and its gradient from one pass.

    Math: as in `gaussian_nll_loss` and `gaussian_nll_loss_backward`, with a grad_output of one

    Args:
        input: As in `gaussian_nll_loss`. Strided operands are packed into workspace.
        target: As in `gaussian_nll_loss`.
        var: As in `gaussian_nll_loss`.
        full: As in `gaussian_nll_loss`.
        eps: As in `gaussian_nll_loss`.
        reduction: As in `gaussian_nll_loss`; for "none" grad_output is an array of ones.
        wrt: "input", "target", "var" or a tuple of them. Default: ("input", "var"), or "input"
            where var is a number.

    Returns:
        `(loss, gradient)`, the gradient in the form of `gaussian_nll_loss_backward`.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, the reduction is unknown, or, on the cpu, a variance is
            negative. On a device the loss of such an element is NaN.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, t, var = np.array([1.0]), np.array([3.0]), np.array([1.0])
        >>> loss, (dx, dvar) = tg.gaussian_nll_loss_value_and_grad(x, t, var)
        >>> float(loss), dx.tolist(), dvar.tolist()
        (2.0, [-2.0], [-1.5])
    """
    pair: tuple[Any, Any] = of(input).gaussian_nll_loss_value_and_grad(
        input, target, var, None, eps, False, full, reduction, wrt
    )
    return pair
