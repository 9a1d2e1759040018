# SPDX-License-Identifier: MIT
"""Softmax and cross-entropy as one loss."""

from __future__ import annotations

from typing import Any

from ..backends import of
from ._operands import Array, Operand, Scalar, Wrt


def cross_entropy(
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    out: Array | None = None,
) -> Array | Scalar:
    """Return the cross-entropy between a softmax of the input and the target classes.

    Math: loss = -sum_c w_c ((1 - e) q_c + e / C) log_softmax(input)_c with q the target (1 at a
        class index) and e the label smoothing; at a class index t, (1 - e) w_t and e / C w_c.
        mean: the sum over sum of w_t for class indices, over the number of rows for probabilities

    Args:
        input: Logits `(C,)`, `(N, C)` or `(N, C, d1, ...)`, float32, float64 or bfloat16. Strided
            operands are packed into workspace.
        target: Class indices in [0, C), input's shape without C, any integer dtype; or class
            probabilities, input's shape and dtype.
        weight: `(C,)`, a factor for each class, or None.
        ignore_index: A class index whose rows count for nothing.
        reduction: "mean", "sum" or "none". A mean over nothing is NaN.
        label_smoothing: e in [0, 1], the share of the target spread over all classes.
        out: C-contiguous array for the loss.

    Returns:
        A scalar; for "none" an array, input's shape without C.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, an option is out of range, or a class index is.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> logits = np.log(np.array([[0.88, 0.12], [0.5, 0.5]]))
        >>> tg.cross_entropy(logits, np.array([0, 1]), reduction="none").round(6).tolist()
        [0.127833, 0.693147]

    Source: torch.nn.functional.cross_entropy
    """
    loss: Array | Scalar = of(input).cross_entropy(
        input, target, weight, ignore_index, reduction, label_smoothing, out
    )
    return loss


def cross_entropy_backward(
    grad_output: Operand | float,
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    wrt: Wrt | None = None,
    out: Any = None,
) -> Any:
    """Differentiate `cross_entropy`.

    Math: dinput_c = g (softmax(input)_c sum_k s_k - s_c), s_c = w_c ((1 - e) q_c + e / C), and g
        the grad_output of the row, over the divisor of a mean; 0 in a row that is ignored; of
        probabilities dtarget_c = -g (1 - e) w_c log softmax(input)_c

    Args:
        grad_output: Gradient of the loss: a scalar, or for "none" an array of the loss's shape.
        input: As in the forward call. Strided operands are packed into workspace.
        target: As in the forward call; class indices have no gradient.
        weight: As in the forward call; it has no gradient.
        ignore_index: As in the forward call.
        reduction: As in the forward call.
        label_smoothing: As in the forward call.
        wrt: "input", "target" (where it holds probabilities) or a tuple of them. Default:
            "input".
        out: An array for one name, a tuple in input order for several.

    Returns:
        The gradient for one name, a tuple in input order for several.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, an option is out of range, or a class index is.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.cross_entropy_backward(1.0, np.zeros((1, 4)), np.array([1])).tolist()
        [[0.25, -0.75, 0.25, 0.25]]
    """
    return of(input).cross_entropy_backward(
        grad_output, input, target, weight, ignore_index, reduction, label_smoothing, wrt, out
    )


def cross_entropy_value_and_grad(
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    wrt: Wrt | None = None,
    variant: str | None = None,
) -> tuple[Any, Any]:
    """Return the loss of `cross_entropy` and its gradient, each row read once for both.

    Math: as in `cross_entropy` and `cross_entropy_backward`, with a grad_output of one

    Args:
        input: As in `cross_entropy`. Strided operands are packed into workspace.
        target: As in `cross_entropy`.
        weight: As in `cross_entropy`.
        ignore_index: As in `cross_entropy`.
        reduction: As in `cross_entropy`; for "none" grad_output is an array of ones.
        label_smoothing: As in `cross_entropy`.
        wrt: As in `cross_entropy_backward`; the gradient of target takes a pass of its own.
        variant: On cuda and sim, the rung of the cross-entropy ladder to run, such as
            "online_warp" or "one_pass", or "columns" where an axis follows that of the classes;
            None lets shape, dtype and device choose.

    Returns:
        `(loss, gradient)`, the gradient in the form of `cross_entropy_backward`.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, an option is out of range, a class index is, there is
            no such variant, or it cannot do this problem on this device; the text says why.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> loss, dx = tg.cross_entropy_value_and_grad(np.zeros((1, 4)), np.array([1]))
        >>> round(float(loss), 6), dx.tolist()
        (1.386294, [[0.25, -0.75, 0.25, 0.25]])
    """
    pair: tuple[Any, Any] = of(input).cross_entropy_value_and_grad(
        input, target, weight, ignore_index, reduction, label_smoothing, wrt, variant
    )
    return pair
