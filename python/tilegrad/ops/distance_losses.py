# SPDX-License-Identifier: MIT
"""Losses of how far points lie apart."""

from __future__ import annotations

from typing import Any

from ..backends import of
from ._operands import Array, Operand, Scalar, Wrt


def triplet_margin_loss(
    anchor: Operand,
    positive: Operand,
    negative: Operand,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
    *,
    out: Array | None = None,
) -> Array | Scalar:
    """Return by how much a negative is not further away than a positive.

    Math: loss = max(0, margin + |anchor - positive + eps| - |anchor - negative + eps|) with |d| =
        (sum |d_i|^p)^(1/p). torch takes p <= 0 as well, and a distance of two operands that both
        have one feature where the third has more

    Args:
        anchor: Points `(D,)`, `(N, D)` or `(..., D)`, float32 or float64. Strided operands are
            packed into workspace.
        positive: Points that should be near, anchor's dtype; the three have as many axes and
            broadcast.
        negative: Points that should be far.
        margin: By which the negative should be further, above 0.
        p: Of the norm, above 0; `inf` is the largest difference.
        eps: Added to every difference.
        swap: Take the distance of positive and negative where it is less than that of anchor and
            negative.
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
        >>> a, p, n = np.zeros(2), np.array([3.0, 4.0]), np.array([0.0, 2.0])
        >>> float(tg.triplet_margin_loss(a, p, n, eps=0.0))
        4.0

    Source: torch.nn.functional.triplet_margin_loss
    """
    loss: Array | Scalar = of(anchor).triplet_margin_loss(
        anchor, positive, negative, margin, p, eps, swap, reduction, out
    )
    return loss


def triplet_margin_loss_backward(
    grad_output: Operand | float,
    anchor: Operand,
    positive: Operand,
    negative: Operand,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
    out: Any = None,
) -> Any:
    """Differentiate `triplet_margin_loss`.

    Math: where the loss is not below 0: danchor = g (u - v), dpositive = -g u, dnegative = g v with
        u, v the derivatives of the two norms, sign(d_i) (|d_i| / |d|)^(p - 1), 0 at a norm of 0;
        for inf the largest differences share it, with swap equal distances have half each. Sums
        over the axes that were broadcast; g is grad_output, over the divisor of a mean

    Args:
        grad_output: Gradient of the loss: a scalar, or for "none" an array of the loss's shape.
        anchor: As in the forward call. Strided operands are packed into workspace.
        positive: As in the forward call.
        negative: As in the forward call.
        margin: As in the forward call.
        p: As in the forward call.
        eps: As in the forward call.
        swap: As in the forward call.
        reduction: As in the forward call.
        wrt: "anchor", "positive", "negative" or a tuple of them. Default: all three.
        out: An array for one name, a tuple in the order (anchor, positive, negative) for several.

    Returns:
        The gradient for one name, a tuple in the order (anchor, positive, negative) for several.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or an option is unknown or out of range.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> a, p, n = np.zeros(2), np.array([3.0, 4.0]), np.array([0.0, 2.0])
        >>> tg.triplet_margin_loss_backward(1.0, a, p, n, eps=0.0, wrt="positive").round(6).tolist()
        [0.6, 0.8]
    """
    return of(anchor).triplet_margin_loss_backward(
        grad_output, anchor, positive, negative, margin, p, eps, swap, reduction, wrt, out
    )


def triplet_margin_loss_value_and_grad(
    anchor: Operand,
    positive: Operand,
    negative: Operand,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
) -> tuple[Any, Any]:
    """Return the loss of `triplet_margin_loss` and its gradients from one call.

    Math: as in `triplet_margin_loss` and `triplet_margin_loss_backward`, with a grad_output of one

    Args:
        anchor: As in `triplet_margin_loss`. Strided operands are packed into workspace.
        positive: As in `triplet_margin_loss`.
        negative: As in `triplet_margin_loss`.
        margin: As in `triplet_margin_loss`.
        p: As in `triplet_margin_loss`.
        eps: As in `triplet_margin_loss`.
        swap: As in `triplet_margin_loss`.
        reduction: As in `triplet_margin_loss`; for "none" grad_output is an array of ones.
        wrt: As in `triplet_margin_loss_backward`.

    Returns:
        `(loss, gradient)`, the gradient in the form of `triplet_margin_loss_backward`.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or an option is unknown or out of range.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> a, p, n = np.zeros(1), np.ones(1), np.full(1, 0.5)
        >>> loss, (da, dp, dn) = tg.triplet_margin_loss_value_and_grad(a, p, n, eps=0.0)
        >>> float(loss), da.tolist(), dp.tolist(), dn.tolist()
        (1.5, [0.0], [1.0], [-1.0])
    """
    pair: tuple[Any, Any] = of(anchor).triplet_margin_loss_value_and_grad(
        anchor, positive, negative, margin, p, eps, swap, reduction, wrt
    )
    return pair


def cosine_embedding_loss(
    input1: Operand,
    input2: Operand,
    target: Operand,
    margin: float = 0.0,
    reduction: str = "mean",
    *,
    out: Array | None = None,
) -> Array | Scalar:
    """Return how far the angles between pairs of points are from what they should be.

    Math: cos = x1 x2 / sqrt((x1 x1 + 1e-12) (x2 x2 + 1e-12)); loss = 1 - cos where target is 1,
        max(0, cos - margin) where it is -1

    Args:
        input1: Points `(N, D)` or `(D,)`, float32 or float64. Strided operands are packed into
            workspace.
        input2: Points, input1's dtype; N broadcasts, D does not.
        target: 1 where two points belong together, -1 where they do not, `(N,)` or `()`; any
            integer dtype or the inputs'. A row with another number has a loss of 0.
        margin: The cosine up to which points that do not belong together cost nothing.
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
        >>> x, y = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 2.0], [3.0, 4.0]])
        >>> tg.cosine_embedding_loss(x, y, np.array([1, -1]), reduction="none").round(6).tolist()
        [1.0, 0.6]

    Source: torch.nn.functional.cosine_embedding_loss
    """
    loss: Array | Scalar = of(input1).cosine_embedding_loss(
        input1, input2, target, margin, reduction, out
    )
    return loss


def cosine_embedding_loss_backward(
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
    """Differentiate `cosine_embedding_loss`.

    Math: dinput1 = g s (x2 / length - cos x1 / (x1 x1 + 1e-12)), length the root above, s = -1
        where target is 1, 1 where it is -1 and cos is not below margin, else 0; dinput2 with x1 and
        x2 swapped. Sums over rows that were broadcast; g is grad_output, over the divisor of a mean

    Args:
        grad_output: Gradient of the loss: a scalar, or for "none" an array of the loss's shape.
        input1: As in the forward call. Strided operands are packed into workspace.
        input2: As in the forward call.
        target: As in the forward call; it has no gradient.
        margin: As in the forward call.
        reduction: As in the forward call.
        wrt: "input1", "input2" or a tuple of them. Default: both.
        out: An array for one name, a tuple in the order (input1, input2) for several.

    Returns:
        The gradient for one name, a tuple in the order (input1, input2) for several.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or an option is unknown or out of range.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, y = np.array([1.0, 0.0]), np.array([0.0, 2.0])
        >>> dx, dy = tg.cosine_embedding_loss_backward(1.0, x, y, np.array(1))
        >>> dx.round(6).tolist(), dy.round(6).tolist()
        ([0.0, -1.0], [-0.5, 0.0])
    """
    return of(input1).cosine_embedding_loss_backward(
        grad_output, input1, input2, target, margin, reduction, wrt, out
    )


def cosine_embedding_loss_value_and_grad(
    input1: Operand,
    input2: Operand,
    target: Operand,
    margin: float = 0.0,
    reduction: str = "mean",
    *,
    wrt: Wrt | None = None,
) -> tuple[Any, Any]:
    """Return the loss of `cosine_embedding_loss` and its gradients from one call.

    Math: as in `cosine_embedding_loss` and `cosine_embedding_loss_backward`, with a grad_output of
        one

    Args:
        input1: As in `cosine_embedding_loss`. Strided operands are packed into workspace.
        input2: As in `cosine_embedding_loss`.
        target: As in `cosine_embedding_loss`.
        margin: As in `cosine_embedding_loss`.
        reduction: As in `cosine_embedding_loss`; for "none" grad_output is an array of ones.
        wrt: As in `cosine_embedding_loss_backward`.

    Returns:
        `(loss, gradient)`, the gradient in the form of `cosine_embedding_loss_backward`.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes do not fit, or an option is unknown or out of range.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, y = np.array([1.0, 0.0]), np.array([0.0, 2.0])
        >>> loss, (dx, dy) = tg.cosine_embedding_loss_value_and_grad(x, y, np.array(1))
        >>> float(loss), dx.round(6).tolist(), dy.round(6).tolist()
        (1.0, [0.0, -1.0], [-0.5, 0.0])
    """
    pair: tuple[Any, Any] = of(input1).cosine_embedding_loss_value_and_grad(
        input1, input2, target, margin, reduction, wrt
    )
    return pair
