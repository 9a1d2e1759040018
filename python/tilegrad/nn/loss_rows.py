# SPDX-License-Identifier: MIT
"""The losses with one value a row, as modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tilegrad.nn.loss import Loss
from tilegrad.nn.module import Array

if TYPE_CHECKING:
    from tilegrad._recorder import Recorder


class NLLLoss(Loss):
    """Negative log likelihood of classes, after a LogSoftmax.

    Math: -w_t input_t at the row's class t; a mean divides by the sum of w_t; see
    ``tilegrad.nll_loss``.

    Args:
        weight: Weight of each class, (C,), or None; it follows the input to its device.
        ignore_index: Rows with this class index count for nothing.
        reduction: "none", "mean" or "sum".

    Example:
        >>> import numpy as np
        >>> loss_fn = NLLLoss()
        >>> print(loss_fn(np.log(np.array([[0.25, 0.75]])), np.array([0])))  # log 4
        1.3862943611198906
        >>> loss_fn.backward()
        array([[-1.,  0.]])

    Source: torch.nn.NLLLoss.
    """

    _op = "nll_loss"
    _kept = ("weight",)

    def __init__(
        self, weight: Array | None = None, ignore_index: int = -100, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        self.weight = weight
        self.ignore_index = ignore_index

    def _options(self) -> dict[str, Any]:
        return {
            "weight": self.weight,
            "ignore_index": self.ignore_index,
            "reduction": self.reduction,
        }

    def _record_loss(self, recorder: Recorder, input: Array, target: Array) -> tuple[Array, Array]:
        if self.reduction == "none":
            return super()._record_loss(recorder, input, target)
        loss = recorder.empty((), input.dtype)
        gradient = recorder.empty(input.shape, input.dtype)
        weight = None if self.weight is None else recorder.constant(self.weight)
        recorder.plan.nll_loss(
            loss, gradient, input, target, weight, self.ignore_index, self.reduction
        )
        return loss, gradient


class MultiMarginLoss(Loss):
    """Hinge loss of several classes, one of which is right.

    Math: w_t / C sum over c != t of max(0, margin - input_t + input_c)^p; see
    ``tilegrad.multi_margin_loss``.

    Args:
        p: Power of each margin, 1 or 2.
        margin: By which the right score should exceed the others.
        weight: Weight of each class, (C,), or None; it follows the input to its device.
        reduction: "none", "mean" or "sum".

    Example:
        >>> import numpy as np
        >>> loss_fn = MultiMarginLoss()
        >>> print(loss_fn(np.array([[0.0, 0.5]]), np.array([0])))
        0.75
        >>> loss_fn.backward()
        array([[-0.5,  0.5]])

    Source: torch.nn.MultiMarginLoss.
    """

    _op = "multi_margin_loss"
    _kept = ("weight",)

    def __init__(
        self,
        p: int = 1,
        margin: float = 1.0,
        weight: Array | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        if p not in (1, 2):
            raise ValueError(f"MultiMarginLoss: p must be 1 or 2; got {p}")
        if weight is not None and not hasattr(weight, "shape"):
            raise TypeError(
                f"MultiMarginLoss: weight must be an array; got {type(weight).__name__}"
            )
        if weight is not None and len(weight.shape) != 1:
            raise ValueError(
                f"MultiMarginLoss: weight must have one axis; got shape {tuple(weight.shape)}"
            )
        self.p = p
        self.margin = margin
        self.weight = weight

    def _options(self) -> dict[str, Any]:
        return {
            "p": self.p,
            "margin": self.margin,
            "weight": self.weight,
            "reduction": self.reduction,
        }


class MultiLabelMarginLoss(Loss):
    """Hinge loss of several classes, any number of which are right.

    Math: 1 / C sum over the listed t and the c not listed of max(0, 1 - input_t + input_c); see
    ``tilegrad.multilabel_margin_loss``.

    Args:
        reduction: "none", "mean" or "sum".

    Example:
        >>> import numpy as np
        >>> loss_fn = MultiLabelMarginLoss()
        >>> print(loss_fn(np.array([[1.0, 0.5]]), np.array([[0, -1]])))
        0.25
        >>> loss_fn.backward()
        array([[-0.5,  0.5]])

    Source: torch.nn.MultiLabelMarginLoss.
    """

    _op = "multilabel_margin_loss"

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)


class MultiLabelSoftMarginLoss(Loss):
    """Mean of the binary cross-entropies of a row's labels.

    Math: -1 / C sum_c w_c (target_c log s(input_c) + (1 - target_c) log s(-input_c)), s the
    sigmoid; see ``tilegrad.multilabel_soft_margin_loss``.

    Args:
        weight: Weight of each label, (C,), or None; it follows the input to its device.
        reduction: "none", "mean" or "sum".

    Example:
        >>> import numpy as np
        >>> loss_fn = MultiLabelSoftMarginLoss()
        >>> print(loss_fn(np.zeros((1, 2)), np.array([[0.0, 1.0]])).round(6))  # log 2
        0.693147
        >>> loss_fn.backward()
        array([[ 0.25, -0.25]])

    Source: torch.nn.MultiLabelSoftMarginLoss.
    """

    _op = "multilabel_soft_margin_loss"
    _kept = ("weight",)

    def __init__(self, weight: Array | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.weight = weight

    def _options(self) -> dict[str, Any]:
        return {"weight": self.weight, "reduction": self.reduction}


class TripletMarginLoss(Loss):
    """By how much a negative is not further from the anchor than a positive.

    Math: max(0, margin + |anchor - positive + eps|_p - |anchor - negative + eps|_p); see
    ``tilegrad.triplet_margin_loss``.

    Args:
        margin: By which the negative should be further, above 0.
        p: Of the norm, above 0.
        eps: Added to every difference.
        swap: Take the distance of positive and negative where it is less.
        reduction: "none", "mean" or "sum".

    Example:
        >>> import numpy as np
        >>> loss_fn = TripletMarginLoss(eps=0.0)
        >>> print(loss_fn(np.zeros((1, 1)), np.ones((1, 1)), np.full((1, 1), 0.5)))
        1.5
        >>> loss_fn.backward()  # of anchor, positive and negative
        (array([[0.]]), array([[1.]]), array([[-1.]]))

    Source: torch.nn.TripletMarginLoss.
    """

    _op = "triplet_margin_loss"

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        if margin <= 0:
            raise ValueError(f"TripletMarginLoss: margin must be greater than 0; got {margin}")
        self.margin = margin
        self.p = p
        self.eps = eps
        self.swap = swap

    def _options(self) -> dict[str, Any]:
        return {
            "margin": self.margin,
            "p": self.p,
            "eps": self.eps,
            "swap": self.swap,
            "reduction": self.reduction,
        }

    def forward(  # type: ignore[override]
        self, anchor: Array, positive: Array, negative: Array
    ) -> Any:
        """Return the loss: a scalar, or one value a row for reduction "none"."""
        return self._loss(anchor, positive, negative)


class CosineEmbeddingLoss(Loss):
    """How far the angles between pairs of points are from what they should be.

    Math: 1 - cos where target is 1, max(0, cos - margin) where it is -1; see
    ``tilegrad.cosine_embedding_loss``.

    Args:
        margin: The cosine up to which points that do not belong together cost nothing.
        reduction: "none", "mean" or "sum".

    Example:
        >>> import numpy as np
        >>> loss_fn = CosineEmbeddingLoss()
        >>> x, y = np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])
        >>> print(loss_fn(x, y, np.array([1])))
        1.0
        >>> [gradient.round(6).tolist() for gradient in loss_fn.backward()]
        [[[0.0, -1.0]], [[-0.5, 0.0]]]

    Source: torch.nn.CosineEmbeddingLoss.
    """

    _op = "cosine_embedding_loss"

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def _options(self) -> dict[str, Any]:
        return {"margin": self.margin, "reduction": self.reduction}

    def forward(  # type: ignore[override]
        self, input1: Array, input2: Array, target: Array
    ) -> Any:
        """Return the loss: a scalar, or one value a row for reduction "none"."""
        return self._loss(input1, input2, target)
