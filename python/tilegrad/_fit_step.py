# SPDX-License-Identifier: MIT
"""A training step of `fit`: the recorded one or, for what has no plan, the long form."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tilegrad._makers import asarray
from tilegrad._train import TrainStep
from tilegrad.nn.loss import Loss
from tilegrad.nn.module import Module
from tilegrad.nn.utils import clip_grad_norm_
from tilegrad.optim.optimizer import Optimizer

Array: TypeAlias = NDArray[Any]


class Step:
    """A training step.

    Args:
        model: As of `fit`.
        loss_fn: As of `fit`.
        optimizer: As of `fit`.
        max_norm: As of `fit`.
        op: Name for the error texts.
    """

    def __init__(
        self,
        model: Module,
        loss_fn: Module,
        optimizer: Optimizer,
        max_norm: float | None,
        op: str = "fit",
    ) -> None:
        self._parts = model, loss_fn, optimizer
        self._op = op
        self._max_norm = max_norm
        self._recorded: TrainStep | None = None
        if isinstance(loss_fn, Loss):
            with _signed(op):
                self._recorded = TrainStep(model, loss_fn, optimizer, max_norm=max_norm)

    def __call__(self, x: Array, target: Array) -> Any:
        """Train on a batch; return its loss."""
        if self._recorded is not None:
            try:
                with _signed(self._op):
                    return self._recorded(x, target)
            except (TypeError, RuntimeError) as error:
                # Raised while recording, before a random number is drawn or a value changed.
                if "has no plan" not in str(error):
                    raise
                self._recorded = None
        model, loss_fn, optimizer = self._parts
        x, target = (on_device_of(model, array) for array in (x, target))
        optimizer.zero_grad()
        loss = loss_fn(model(x), target)
        model.backward(loss_fn.backward(None), input_grad=False)
        if self._max_norm is not None:
            clip_grad_norm_(model.parameters(), self._max_norm)
        optimizer.step()
        return loss


def on_device_of(model: Module, array: Array) -> Any:
    """Return an array on the device of a model."""
    device = next((parameter.device for parameter in model.parameters()), "cpu")
    on_host = isinstance(array, np.ndarray)
    return asarray(np.ascontiguousarray(array) if on_host else array, device=device)


@contextlib.contextmanager
def _signed(op: str) -> Iterator[None]:
    """Let errors of TrainStep bear the name of what was called."""
    try:
        yield
    except (TypeError, ValueError, RuntimeError) as error:
        text = str(error)
        if text.startswith("TrainStep:"):
            error.args = (text.replace("TrainStep:", f"{op}:", 1),)
        raise
