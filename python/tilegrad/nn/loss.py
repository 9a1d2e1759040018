# SPDX-License-Identifier: MIT
"""One class for each loss.

After ``loss = loss_fn(input, target)``, ``loss_fn.backward()`` is the gradient of the input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from tilegrad import ops
from tilegrad._makers import asarray
from tilegrad.backends import place_name, place_of_array
from tilegrad.nn.module import Array, Module

if TYPE_CHECKING:
    from tilegrad._recorder import Recorder

REDUCTIONS = ("none", "mean", "sum")


class Loss(Module):
    """Base of the losses.

    In training mode ``forward`` computes the gradient together with the loss, in one pass; in eval
    mode it does no gradient work.
    """

    _op: str
    _reductions: ClassVar[tuple[str, ...]] = REDUCTIONS
    _names: ClassVar[tuple[str, ...]] = ()  # attributes that are options beside the reduction
    _kept: ClassVar[tuple[str, ...]] = ()  # those of them that are arrays, or None

    def __init__(self, reduction: str) -> None:
        super().__init__()
        if reduction not in self._reductions:
            known = ", ".join(map(repr, self._reductions))
            raise ValueError(
                f"{type(self).__name__}: reduction must be one of {known}; got {reduction!r}"
            )
        self.reduction = reduction

    def _follow(self, input: Array) -> None:
        """Move what the loss keeps to the device of its input."""
        place = place_of_array(input)
        for name in self._kept:
            array = getattr(self, name)
            if array is not None and place_of_array(array) != place:
                setattr(self, name, asarray(array, device=place_name(place)))

    def _options(self) -> dict[str, Any]:
        """Return the keyword arguments of the loss's function."""
        return {"reduction": self.reduction, **{name: getattr(self, name) for name in self._names}}

    def forward(self, input: Array, target: Array) -> Any:
        """Return the loss: a scalar, or one value an element or row for reduction "none"."""
        return self._loss(input, target)

    def _loss(self, *operands: Any) -> Any:
        self._follow(operands[0])
        if not self.training:
            self._save(None)
            return getattr(ops, self._op)(*operands, **self._options())
        loss, gradient = getattr(ops, f"{self._op}_value_and_grad")(*operands, **self._options())
        self._save(*operands, gradient)
        return loss

    def backward(self, grad_output: Any = None, input_grad: bool = True) -> Any:
        """Return what the backward function of the loss does: the gradient of the input.

        Args:
            grad_output: Gradient of what came of the loss, like the loss; None is one.
            input_grad: False returns None.
        """
        *operands, gradient = self._take_saved()
        if not input_grad:
            return None
        if grad_output is None:
            return gradient
        return getattr(ops, f"{self._op}_backward")(grad_output, *operands, **self._options())

    def _record_loss(self, recorder: Recorder, input: Array, target: Array) -> tuple[Array, Array]:
        """Record loss and gradient; return their buffers."""
        if self.reduction == "none":
            raise ValueError(
                f"TrainStep: {type(self).__name__} needs reduction 'mean' or 'sum'; got 'none'"
            )
        raise TypeError(f"TrainStep: {type(self).__name__} has no plan")


class CrossEntropyLoss(Loss):
    """Cross-entropy of logits with class indices or class probabilities.

    Math: -log softmax(input)[target], averaged with the class weights; see
    ``tilegrad.cross_entropy`` for every option.

    Args:
        weight: Weight of each class, (C,), or None; it follows the input to its device.
        ignore_index: Rows with this class index count for nothing.
        reduction: "none", "mean" or "sum".
        label_smoothing: Share of the target spread evenly over the classes, in [0, 1].

    Example:
        >>> import numpy as np
        >>> loss_fn = CrossEntropyLoss()
        >>> print(loss_fn(np.zeros((1, 4)), np.array([2])))  # log 4
        1.3862943611198906
        >>> loss_fn.backward()
        array([[ 0.25,  0.25, -0.75,  0.25]])

    Source: torch.nn.CrossEntropyLoss.
    """

    _op = "cross_entropy"
    _names = ("weight", "ignore_index", "label_smoothing")
    _kept = ("weight",)

    def __init__(
        self,
        weight: Array | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(
                f"CrossEntropyLoss: label_smoothing must be in [0, 1]; got {label_smoothing}"
            )
        self.weight = weight
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def _record_loss(self, recorder: Recorder, input: Array, target: Array) -> tuple[Array, Array]:
        if self.reduction == "none":
            return super()._record_loss(recorder, input, target)
        loss = recorder.empty((), input.dtype)
        gradient = recorder.empty(input.shape, input.dtype)
        weight = None if self.weight is None else recorder.constant(self.weight)
        recorder.plan.cross_entropy(
            loss, gradient, input, target, weight, self.ignore_index, self.reduction,
            self.label_smoothing,
        )  # fmt: skip
        return loss, gradient
