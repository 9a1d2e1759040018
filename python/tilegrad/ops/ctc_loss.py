# SPDX-License-Identifier: MIT
"""Connectionist temporal classification: sequences of labels without an alignment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from ..backends import of
from ._operands import Array, Operand, Scalar, Wrt

Lengths: TypeAlias = Operand | Sequence[int]


def ctc_loss(
    log_probs: Operand,
    targets: Operand,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
    *,
    out: Array | None = None,
) -> Array | Scalar:
    """Return the negative log-likelihood of label sequences, summed over all their alignments.

    Math: loss = -log sum over the paths p of prod_t exp(log_probs[t, p_t]), p a class for each
        time t < input_length that is the target once repeats are merged and then blanks dropped.
        mean: each loss over max(1, its target's length), then the mean over the samples

    A sample without such a path (a target of S labels, r of which repeat the one before, needs
    S + r times) has an infinite loss. The recursion's states are float64 for either dtype, so that
    the error does not grow with T.

    Args:
        log_probs: `(T, N, C)`, or `(T, C)` for one sample, float32 or float64: the logarithms of
            probabilities, as `log_softmax` gives them. Strided operands are packed into workspace.
        targets: Labels in [0, C), any integer dtype: `(N, S)`, of which each row's first
            target_length count, or all samples' labels one after the other in one axis. A blank
            among them is taken for a label.
        input_lengths: `(N,)`, how many of the T times a sample has: an array of any integer dtype,
            or a tuple or list of ints; without an axis too for one sample. Lengths on a device are
            copied to the host, which waits for them.
        target_lengths: `(N,)`, how many labels a sample has; in the same forms.
        blank: The class that stands for no label.
        reduction: "mean", "sum" or "none". A mean over nothing is NaN.
        zero_infinity: Take an infinite loss and its gradient for zero.
        out: C-contiguous array for the loss.

    Returns:
        A scalar; for "none" `(N,)`, or a scalar for one sample without that axis.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or a length no integer.
        ValueError: If shapes do not fit, a length or the blank is out of range, or a label is. On
            cuda and sim such a label gives its sample a loss of NaN and a gradient of zero instead.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> probs = np.array([[0.5, 0.5], [0.25, 0.75]])  # of the blank and of label 1
        >>> loss = tg.ctc_loss(np.log(probs), np.array([1]), (2,), (1,))
        >>> round(float(np.exp(-loss)), 6)  # the paths 11, 1-, -1: 0.375 + 0.125 + 0.375
        0.875

    Source: torch.nn.functional.ctc_loss; Graves, Fernandez, Gomez and Schmidhuber, ICML 2006. Where
        torch refuses a batch or a time of size 0, there is a result here.
    """
    loss: Array | Scalar = of(log_probs).ctc_loss(
        log_probs, targets, input_lengths, target_lengths, blank, reduction, zero_infinity, out
    )
    return loss


def ctc_loss_backward(
    grad_output: Operand | float,
    log_probs: Operand,
    targets: Operand,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
    *,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `ctc_loss`, for log_probs that come from a `log_softmax`.

    Math: dlog_probs[t, c] = g (exp(log_probs[t, c]) - share of the paths that have class c at t),
        with g the grad_output of the sample, over N max(1, target length) for a mean; 0 from
        input_length on

    This is torch's gradient, that of the input of a `log_softmax` which made log_probs. By
    log_probs alone the derivative is -g times the share. `log_softmax_backward` makes the same of
    both: the rows of this gradient add up to zero, so it comes out unchanged. Where log_probs is
    made in another way the gradient is wrong; check it through a `log_softmax`.

    Up to its input_length the gradient of a sample is NaN where its loss is infinite (0 with
    zero_infinity) or NaN. Unlike torch's it is 0, not NaN, where log_probs is -inf (no path goes
    there), and right at the last time of a target that ends in the blank.

    Args:
        grad_output: Gradient of the loss: a scalar, or for "none" an array of the loss's shape.
        log_probs: As in the forward call. Strided operands are packed into workspace.
        targets: As in the forward call; they have no gradient.
        input_lengths: As in the forward call.
        target_lengths: As in the forward call.
        blank: As in the forward call.
        reduction: As in the forward call.
        zero_infinity: As in the forward call.
        wrt: "log_probs", the only choice; a tuple of it returns a tuple.
        out: C-contiguous array for the gradient.

    Returns:
        The gradient of log_probs, its shape and dtype.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or a length no integer.
        ValueError: If shapes do not fit, a length or the blank is out of range, or a label is.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> log_probs = np.log(np.array([[0.5, 0.5], [0.25, 0.75]]))
        >>> dx = tg.ctc_loss_backward(1.0, log_probs, np.array([1]), (2,), (1,))
        >>> dx.round(6).tolist()  # shares of label 1: 0.5 / 0.875 and 0.75 / 0.875
        [[0.071429, -0.071429], [0.107143, -0.107143]]
    """
    gradient: Array = of(log_probs).ctc_loss_backward(
        grad_output, log_probs, targets, input_lengths, target_lengths, blank, reduction,
        zero_infinity, wrt, out,
    )  # fmt: skip
    return gradient


def ctc_loss_value_and_grad(
    log_probs: Operand,
    targets: Operand,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
    *,
    wrt: Wrt | None = None,
) -> tuple[Any, Array]:
    """Return the loss of `ctc_loss` and its gradient, which share the walk forward through time.

    Math: as in `ctc_loss` and `ctc_loss_backward`, with a grad_output of one

    Args:
        log_probs: As in `ctc_loss`. Strided operands are packed into workspace.
        targets: As in `ctc_loss`.
        input_lengths: As in `ctc_loss`.
        target_lengths: As in `ctc_loss`.
        blank: As in `ctc_loss`.
        reduction: As in `ctc_loss`; for "none" grad_output is an array of ones.
        zero_infinity: As in `ctc_loss`.
        wrt: "log_probs", the only choice; a tuple of it returns a tuple.

    Returns:
        `(loss, gradient of log_probs)`.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or a length no integer.
        ValueError: If shapes do not fit, a length or the blank is out of range, or a label is.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> log_probs = np.log(np.full((1, 4), 0.25))
        >>> loss, dx = tg.ctc_loss_value_and_grad(log_probs, np.array([2]), (1,), (1,))
        >>> round(float(loss), 6), dx.tolist()  # log 4, and softmax less the label
        (1.386294, [[0.25, 0.25, -0.75, 0.25]])
    """
    pair: tuple[Any, Array] = of(log_probs).ctc_loss_value_and_grad(
        log_probs, targets, input_lengths, target_lengths, blank, reduction, zero_infinity, wrt
    )
    return pair
