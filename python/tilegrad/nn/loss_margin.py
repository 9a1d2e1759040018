# SPDX-License-Identifier: MIT
"""One class for each elementwise loss that asks for a margin."""

from __future__ import annotations

from typing import Any

from tilegrad.nn.loss import Loss
from tilegrad.nn.loss_elementwise import ElementwiseLoss
from tilegrad.nn.module import Array


class MarginRankingLoss(Loss):
    """How far two scores are from the wanted order; `backward()` is that of both.

    Math: mean of max(0, margin - target (input1 - input2)).

    Args:
        margin: The difference that is wanted.
        reduction: "none", "mean" or "sum".

    Example:
        >>> import numpy as np
        >>> loss_fn = MarginRankingLoss()
        >>> print(loss_fn(np.array([1.0]), np.array([3.0]), np.array([1.0])))
        2.0
        >>> loss_fn.backward()
        (array([-1.]), array([1.]))

    Source: torch.nn.MarginRankingLoss.
    """

    _op = "margin_ranking_loss"
    _names = ("margin",)

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input1: Array, input2: Array, target: Array) -> Any:  # type: ignore[override]
        """Return the loss: a scalar, or one value an element for reduction "none"."""
        return self._loss(input1, input2, target)


class HingeEmbeddingLoss(ElementwiseLoss):
    """Distances of pairs that belong together, what a margin lacks of the others.

    Math: mean of x where target is 1, of max(0, margin - x) where it is -1.

    Args:
        margin: The distance that is wanted where target is -1.
        reduction: "none", "mean" or "sum".

    Example:
        >>> import numpy as np
        >>> loss_fn = HingeEmbeddingLoss()
        >>> print(loss_fn(np.array([0.25, 0.25]), np.array([1.0, -1.0])))
        0.5

    Source: torch.nn.HingeEmbeddingLoss.
    """

    _op = "hinge_embedding_loss"
    _names = ("margin",)
    _number = "margin"

    def __init__(self, margin: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin


class SoftMarginLoss(ElementwiseLoss):
    """Logistic loss of two classes, 1 and -1.

    Math: mean of log(1 + exp(-target x)).

    Args:
        reduction: "none", "mean" or "sum".

    Example:
        >>> import numpy as np
        >>> loss_fn = SoftMarginLoss()
        >>> print(round(float(loss_fn(np.array([0.0]), np.array([1.0]))), 6))  # log 2
        0.693147

    Source: torch.nn.SoftMarginLoss.
    """

    _op = "soft_margin_loss"

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)
