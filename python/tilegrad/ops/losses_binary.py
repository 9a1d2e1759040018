# SPDX-License-Identifier: MIT
"""Cross-entropy of one probability an element."""

from __future__ import annotations

from typing import Any

from ..backends import of
from ._operands import Array, Operand, Scalar, Wrt


def binary_cross_entropy(
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    reduction: str = "mean",
    *,
    out: Array | None = None,
) -> Array | Scalar:
    """Return the cross-entropy of probabilities.

    Math: loss = -w (t log x + (1 - t) log(1 - x)), each logarithm at least -100

    Args:
        input: Probabilities in [0, 1], float32, float64, bfloat16, on a device float16, any shape;
            of 16 bits only results are rounded. Strided operands are packed into workspace.
        target: Probabilities in [0, 1], input's shape and dtype.
        weight: A factor for each element, of input's dtype, which broadcasts to input's shape, or
            None. A mean divides by n with it too.
        reduction: "mean", "sum" or "none". A mean over nothing is NaN.
        out: C-contiguous array for the loss.

    Returns:
        A scalar; for "none" an array of input's shape.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, the reduction is unknown, or, on the cpu, an element is
            outside [0, 1] (NaN is). On a device the loss of such an element is NaN.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> print(round(float(tg.binary_cross_entropy(np.array([0.88]), np.array([1.0]))), 6))
        0.127833

    Source: torch.nn.functional.binary_cross_entropy
    """
    loss: Array | Scalar = of(input).binary_cross_entropy(
        input, target, None, weight, 0.0, False, False, reduction, out
    )
    return loss


def binary_cross_entropy_backward(
    grad_output: Operand | float,
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
    out: Any = None,
) -> Any:
    """Differentiate `binary_cross_entropy`.

    Math: dinput = g w (x - t) / max(x (1 - x), 1e-12), dtarget = g w (log(1 - x) - log x), where
        the logarithms are not bounded, as in torch; g is grad_output, over n for a mean

    Args:
        grad_output: Gradient of the loss: a scalar, or for "none" an array of the loss's shape.
        input: As in `binary_cross_entropy`. Strided operands are packed into workspace.
        target: As in `binary_cross_entropy`.
        weight: As in `binary_cross_entropy`. It has no gradient.
        reduction: As in the forward call.
        wrt: "input", "target" or a tuple of them. Default: "input".
        out: An array for one name, a tuple in input order for several.

    Returns:
        The gradient for one name, a tuple in input order for several.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or an option is unknown. Elements are not looked at.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.binary_cross_entropy_backward(1.0, np.array([0.5]), np.array([1.0])).tolist()
        [-2.0]
    """
    return of(input).binary_cross_entropy_backward(
        grad_output, input, target, None, weight, 0.0, False, False, reduction, wrt, out
    )


def binary_cross_entropy_value_and_grad(
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
) -> tuple[Any, Any]:
    """Return the loss of `binary_cross_entropy` and its gradient from one pass.

    Math: as in `binary_cross_entropy` and `binary_cross_entropy_backward`, with a grad_output of
        one

    Args:
        input: As in `binary_cross_entropy`. Strided operands are packed into workspace.
        target: As in `binary_cross_entropy`.
        weight: As in `binary_cross_entropy`.
        reduction: As in `binary_cross_entropy`; for "none" grad_output is an array of ones.
        wrt: "input", "target" or a tuple of them. Default: "input".

    Returns:
        `(loss, gradient)`, the gradient in the form of `binary_cross_entropy_backward`.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, the reduction is unknown, or, on the cpu, an element is
            outside [0, 1] (NaN is). On a device the loss of such an element is NaN.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> loss, dx = tg.binary_cross_entropy_value_and_grad(np.array([0.5]), np.array([1.0]))
        >>> round(float(loss), 6), dx.tolist()
        (0.693147, [-2.0])
    """
    pair: tuple[Any, Any] = of(input).binary_cross_entropy_value_and_grad(
        input, target, None, weight, 0.0, False, False, reduction, wrt
    )
    return pair


def binary_cross_entropy_with_logits(
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    reduction: str = "mean",
    pos_weight: Operand | None = None,
    *,
    out: Array | None = None,
) -> Array | Scalar:
    """Return the cross-entropy of the sigmoid of logits.

    Math: loss = w ((1 - t) log(1 + exp x) + p t log(1 + exp(-x))), which does not overflow

    Args:
        input: Logits, float32, float64, bfloat16, on a device float16, any shape; of 16 bits only
            results are rounded. Strided operands are packed into workspace.
        target: Probabilities, input's shape and dtype; not looked at.
        weight: A factor for each element, of input's dtype, which broadcasts to input's shape, or
            None. A mean divides by n with it too.
        reduction: "mean", "sum" or "none". A mean over nothing is NaN.
        pos_weight: p, a factor of the positive part, of input's dtype, which broadcasts to input's
            shape, or None.
        out: C-contiguous array for the loss.

    Returns:
        A scalar; for "none" an array of input's shape.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, t = np.array([0.0, 0.0]), np.array([0.0, 1.0])
        >>> loss = tg.binary_cross_entropy_with_logits(x, t)
        >>> print(round(float(loss), 6))  # log 2
        0.693147

    Source: torch.nn.functional.binary_cross_entropy_with_logits
    """
    loss: Array | Scalar = of(input).binary_cross_entropy_with_logits(
        input, target, pos_weight, weight, 0.0, False, False, reduction, out
    )
    return loss


def binary_cross_entropy_with_logits_backward(
    grad_output: Operand | float,
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    reduction: str = "mean",
    pos_weight: Operand | None = None,
    *,
    wrt: Wrt | None = None,
    out: Any = None,
) -> Any:
    """Differentiate `binary_cross_entropy_with_logits`.

    Math: with s = sigmoid(x): dinput = g w ((1 - t) s - p t (1 - s)), dtarget = g w ((p - 1) log(1
        + exp(-x)) - x); g is grad_output, over n for a mean

    Args:
        grad_output: Gradient of the loss: a scalar, or for "none" an array of the loss's shape.
        input: As in `binary_cross_entropy_with_logits`. Strided operands are packed into workspace.
        target: As in `binary_cross_entropy_with_logits`.
        weight: As in `binary_cross_entropy_with_logits`. It has no gradient.
        reduction: As in the forward call.
        pos_weight: As in `binary_cross_entropy_with_logits`. It has no gradient.
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
        >>> x, t = np.array([0.0, 0.0]), np.array([0.0, 1.0])
        >>> tg.binary_cross_entropy_with_logits_backward(1.0, x, t).tolist()
        [0.25, -0.25]
    """
    return of(input).binary_cross_entropy_with_logits_backward(
        grad_output, input, target, pos_weight, weight, 0.0, False, False, reduction, wrt, out
    )


def binary_cross_entropy_with_logits_value_and_grad(
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    reduction: str = "mean",
    pos_weight: Operand | None = None,
    *,
    wrt: Wrt | None = None,
) -> tuple[Any, Any]:
    """Return the loss of `binary_cross_entropy_with_logits` and its gradient from one pass.

    Math: as in `binary_cross_entropy_with_logits` and `binary_cross_entropy_with_logits_backward`,
        with a grad_output of one

    Args:
        input: As in `binary_cross_entropy_with_logits`. Strided operands are packed into workspace.
        target: As in `binary_cross_entropy_with_logits`.
        weight: As in `binary_cross_entropy_with_logits`.
        reduction: As in `binary_cross_entropy_with_logits`; for "none" grad_output is an array of
            ones.
        pos_weight: As in `binary_cross_entropy_with_logits`.
        wrt: "input", "target" or a tuple of them. Default: "input".

    Returns:
        `(loss, gradient)`, the gradient in the form of `binary_cross_entropy_with_logits_backward`.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, t = np.array([0.0, 0.0]), np.array([0.0, 1.0])
        >>> loss, dx = tg.binary_cross_entropy_with_logits_value_and_grad(x, t)
        >>> round(float(loss), 6), dx.tolist()
        (0.693147, [0.25, -0.25])
    """
    pair: tuple[Any, Any] = of(input).binary_cross_entropy_with_logits_value_and_grad(
        input, target, pos_weight, weight, 0.0, False, False, reduction, wrt
    )
    return pair
