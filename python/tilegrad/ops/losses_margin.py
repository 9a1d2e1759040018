# SPDX-License-Identifier: MIT
"""Losses that ask for a margin, of one element at a time."""

from __future__ import annotations

from typing import Any

from ..backends import of
from ._operands import Array, Operand, Scalar, Wrt


def margin_ranking_loss(
    input1: Operand,
    input2: Operand,
    target: Operand,
    margin: float = 0.0,
    reduction: str = "mean",
    *,
    out: Array | None = None,
) -> Array | Scalar:
    """Return how far two scores are from the wanted order.

    Math: max(0, margin - t (x1 - x2))

    Args:
        input1: The first score; float32, float64, bfloat16, on a device float16, any shape; of 16
            bits only results are rounded. Strided operands are packed into workspace.
        input2: The second score; dtype of input1; as many axes, and the shapes broadcast.
        target: 1 where input1 should be larger, -1 where input2; dtype of input1; as many axes, and
            the shapes broadcast.
        margin: The difference that is wanted.
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
        >>> a, b = np.array([1.0, 1.0]), np.array([3.0, 0.0])
        >>> tg.margin_ranking_loss(a, b, np.array([1.0, 1.0]), reduction="none").tolist()
        [2.0, 0.0]

    Source: torch.nn.functional.margin_ranking_loss
    """
    loss: Array | Scalar = of(input1).margin_ranking_loss(
        input1, input2, target, None, margin, False, False, reduction, out
    )
    return loss


def margin_ranking_loss_backward(
    grad_output: Operand | float,
    input1: Operand,
    input2: Operand,
    target: Operand,
    margin: float = 0.0,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
    out: Any = None,
) -> Any:
    """Differentiate `margin_ranking_loss`.

    Math: dinput1 = -g t where margin - t (x1 - x2) >= 0, else 0; dinput2 = -dinput1, dtarget = g
        (x2 - x1) in the same places, each summed over the axes along which it was broadcast; g is
        grad_output, over n for a mean

    Args:
        grad_output: Gradient of the loss: a scalar, or for "none" an array of the loss's shape.
        input1: As in `margin_ranking_loss`. Strided operands are packed into workspace.
        input2: As in `margin_ranking_loss`.
        target: As in `margin_ranking_loss`.
        margin: As in `margin_ranking_loss`.
        reduction: As in the forward call.
        wrt: "input1", "input2", "target" or a tuple of them. Default: ("input1", "input2").
        out: An array for one name, a tuple in input order for several.

    Returns:
        The gradient for one name, a tuple in input order for several.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> a, b = np.array([1.0, 1.0]), np.array([3.0, 0.0])
        >>> da, db = tg.margin_ranking_loss_backward(1.0, a, b, np.array([1.0, 1.0]))
        >>> da.tolist(), db.tolist()
        ([-0.5, 0.0], [0.5, 0.0])
    """
    return of(input1).margin_ranking_loss_backward(
        grad_output, input1, input2, target, None, margin, False, False, reduction, wrt, out
    )


def margin_ranking_loss_value_and_grad(
    input1: Operand,
    input2: Operand,
    target: Operand,
    margin: float = 0.0,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
) -> tuple[Any, Any]:
    """Return the loss of `margin_ranking_loss` and its gradient from one pass.

    Math: as in `margin_ranking_loss` and `margin_ranking_loss_backward`, with a grad_output of one

    Args:
        input1: As in `margin_ranking_loss`. Strided operands are packed into workspace.
        input2: As in `margin_ranking_loss`.
        target: As in `margin_ranking_loss`.
        margin: As in `margin_ranking_loss`.
        reduction: As in `margin_ranking_loss`; for "none" grad_output is an array of ones.
        wrt: "input1", "input2", "target" or a tuple of them. Default: ("input1", "input2").

    Returns:
        `(loss, gradient)`, the gradient in the form of `margin_ranking_loss_backward`.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> a, b = np.array([1.0, 1.0]), np.array([3.0, 0.0])
        >>> loss, (da, db) = tg.margin_ranking_loss_value_and_grad(a, b, np.ones(2))
        >>> float(loss), da.tolist(), db.tolist()
        (1.0, [-0.5, 0.0], [0.5, 0.0])
    """
    pair: tuple[Any, Any] = of(input1).margin_ranking_loss_value_and_grad(
        input1, input2, target, None, margin, False, False, reduction, wrt
    )
    return pair


def hinge_embedding_loss(
    input: Operand,
    target: Operand,
    margin: float = 1.0,
    reduction: str = "mean",
    *,
    out: Array | None = None,
) -> Array | Scalar:
    """Return distances where pairs belong together, what a margin lacks where not.

    Math: x where t = 1; max(0, margin - x) where t = -1; elsewhere their sum, as in torch

    Args:
        input: Distances; float32, float64, bfloat16, on a device float16, any shape; of 16 bits
            only results are rounded. Strided operands are packed into workspace.
        target: 1 or -1; dtype of input; its shape and input's broadcast.
        margin: The distance that is wanted where target is -1.
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
        >>> x, t = np.array([0.25, 0.25]), np.array([1.0, -1.0])
        >>> tg.hinge_embedding_loss(x, t, reduction="none").tolist()
        [0.25, 0.75]

    Source: torch.nn.functional.hinge_embedding_loss
    """
    loss: Array | Scalar = of(input).hinge_embedding_loss(
        input, target, None, None, margin, False, False, reduction, out
    )
    return loss


def hinge_embedding_loss_backward(
    grad_output: Operand | float,
    input: Operand,
    target: Operand,
    margin: float = 1.0,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
    out: Any = None,
) -> Any:
    """Differentiate `hinge_embedding_loss`.

    Math: dinput = g where t = 1; -g where t = -1 and x <= margin, summed over the axes along which
        it was broadcast; g is grad_output, over n for a mean

    Args:
        grad_output: Gradient of the loss: a scalar, or for "none" an array of the loss's shape.
        input: As in `hinge_embedding_loss`. Strided operands are packed into workspace.
        target: As in `hinge_embedding_loss`.
        margin: As in `hinge_embedding_loss`.
        reduction: As in the forward call.
        wrt: "input", the default.
        out: An array for one name, a tuple in input order for several.

    Returns:
        The gradient for one name, a tuple in input order for several.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, t = np.array([0.25, 0.25]), np.array([1.0, -1.0])
        >>> tg.hinge_embedding_loss_backward(1.0, x, t, reduction="sum").tolist()
        [1.0, -1.0]
    """
    return of(input).hinge_embedding_loss_backward(
        grad_output, input, target, None, None, margin, False, False, reduction, wrt, out
    )


def hinge_embedding_loss_value_and_grad(
    input: Operand,
    target: Operand,
    margin: float = 1.0,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
) -> tuple[Any, Any]:
    """Return the loss of `hinge_embedding_loss` and its gradient from one pass.

    Math: as in `hinge_embedding_loss` and `hinge_embedding_loss_backward`, with a grad_output of
        one

    Args:
        input: As in `hinge_embedding_loss`. Strided operands are packed into workspace.
        target: As in `hinge_embedding_loss`.
        margin: As in `hinge_embedding_loss`.
        reduction: As in `hinge_embedding_loss`; for "none" grad_output is an array of ones.
        wrt: "input", the default.

    Returns:
        `(loss, gradient)`, the gradient in the form of `hinge_embedding_loss_backward`.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, t = np.array([0.25, 0.25]), np.array([1.0, -1.0])
        >>> loss, dx = tg.hinge_embedding_loss_value_and_grad(x, t, reduction="sum")
        >>> float(loss), dx.tolist()
        (1.0, [1.0, -1.0])
    """
    pair: tuple[Any, Any] = of(input).hinge_embedding_loss_value_and_grad(
        input, target, None, None, margin, False, False, reduction, wrt
    )
    return pair


def soft_margin_loss(
    input: Operand,
    target: Operand,
    reduction: str = "mean",
    *,
    out: Array | None = None,
) -> Array | Scalar:
    """Return the logistic loss of two classes.

    Math: log(1 + exp(-t x)), which does not overflow; torch's does where -t x > 88 (float32) or 709

    Args:
        input: Scores; float32, float64, bfloat16, on a device float16, any shape; of 16 bits only
            results are rounded. Strided operands are packed into workspace.
        target: 1 or -1; dtype of input; its shape and input's broadcast.
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
        >>> print(round(float(tg.soft_margin_loss(np.array([0.0]), np.array([1.0]))), 6))  # log 2
        0.693147

    Source: torch.nn.functional.soft_margin_loss
    """
    loss: Array | Scalar = of(input).soft_margin_loss(
        input, target, None, None, 0.0, False, False, reduction, out
    )
    return loss


def soft_margin_loss_backward(
    grad_output: Operand | float,
    input: Operand,
    target: Operand,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
    out: Any = None,
) -> Any:
    """Differentiate `soft_margin_loss`.

    Math: dinput = -g t sigmoid(-t x), summed over the axes along which it was broadcast; g is
        grad_output, over n for a mean

    Args:
        grad_output: Gradient of the loss: a scalar, or for "none" an array of the loss's shape.
        input: As in `soft_margin_loss`. Strided operands are packed into workspace.
        target: As in `soft_margin_loss`.
        reduction: As in the forward call.
        wrt: "input", the default.
        out: An array for one name, a tuple in input order for several.

    Returns:
        The gradient for one name, a tuple in input order for several.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.soft_margin_loss_backward(1.0, np.array([0.0]), np.array([1.0])).tolist()
        [-0.5]
    """
    return of(input).soft_margin_loss_backward(
        grad_output, input, target, None, None, 0.0, False, False, reduction, wrt, out
    )


def soft_margin_loss_value_and_grad(
    input: Operand,
    target: Operand,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
) -> tuple[Any, Any]:
    """Return the loss of `soft_margin_loss` and its gradient from one pass.

    Math: as in `soft_margin_loss` and `soft_margin_loss_backward`, with a grad_output of one

    Args:
        input: As in `soft_margin_loss`. Strided operands are packed into workspace.
        target: As in `soft_margin_loss`.
        reduction: As in `soft_margin_loss`; for "none" grad_output is an array of ones.
        wrt: "input", the default.

    Returns:
        `(loss, gradient)`, the gradient in the form of `soft_margin_loss_backward`.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or the reduction is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> loss, dx = tg.soft_margin_loss_value_and_grad(np.array([0.0]), np.array([1.0]))
        >>> round(float(loss), 6), dx.tolist()
        (0.693147, [-0.5])
    """
    pair: tuple[Any, Any] = of(input).soft_margin_loss_value_and_grad(
        input, target, None, None, 0.0, False, False, reduction, wrt
    )
    return pair
