# SPDX-License-Identifier: MIT
"""The loss of label sequences without an alignment."""

from __future__ import annotations

from typing import Any

from tilegrad.nn.loss import Loss
from tilegrad.nn.module import Array
from tilegrad.ops.ctc_loss import Lengths


class CTCLoss(Loss):
    """Connectionist temporal classification of log-probabilities.

    Math: -log of the likelihood of the target, summed over all alignments; see
    ``tilegrad.ctc_loss``. The gradient belongs under a log-softmax, as torch's.

    Args:
        blank: The class that stands for no label.
        reduction: "none", "mean" or "sum".
        zero_infinity: Take an infinite loss and its gradient for zero.

    Example:
        >>> import numpy as np
        >>> loss_fn = CTCLoss()
        >>> log_probs = np.log(np.full((1, 1, 4), 0.25))  # one time, one sample, four classes
        >>> print(round(float(loss_fn(log_probs, np.array([[2]]), (1,), (1,))), 6))  # log 4
        1.386294
        >>> loss_fn.backward()
        array([[[ 0.25,  0.25, -0.75,  0.25]]])

    Source: torch.nn.CTCLoss.
    """

    _op = "ctc_loss"

    def __init__(
        self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False
    ) -> None:
        super().__init__(reduction)
        self.blank = blank
        self.zero_infinity = zero_infinity

    def _options(self) -> dict[str, Any]:
        return {
            "blank": self.blank,
            "reduction": self.reduction,
            "zero_infinity": self.zero_infinity,
        }

    def forward(  # type: ignore[override]  # four operands
        self, log_probs: Array, targets: Array, input_lengths: Lengths, target_lengths: Lengths
    ) -> Any:
        """Return the loss: a scalar, or one value a sample for reduction "none"."""
        return self._loss(log_probs, targets, input_lengths, target_lengths)
