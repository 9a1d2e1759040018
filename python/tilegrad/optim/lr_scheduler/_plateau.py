# SPDX-License-Identifier: MIT
"""The schedule that looks at a measurement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import SupportsFloat

from tilegrad.optim.lr_scheduler._base import LRScheduler
from tilegrad.optim.optimizer import Optimizer, check_option


class ReduceLROnPlateau(LRScheduler):
    """Lower the rate when a measurement has not improved for some epochs.

    ``step(metrics)`` takes the epoch's measurement; ``fit`` gives it one itself. NaN is no
    improvement.

    Math: better is, in mode "min", m < best (1 - threshold), or m < best - threshold in
    threshold_mode "abs"; in mode "max" m > best (1 + threshold) or m > best + threshold.
    After more than patience epochs that are no better: lr = max(lr factor, min_lr).

    Args:
        optimizer: The optimiser.
        mode: "min" if lower is better, "max" if higher is.
        factor: What the rate is multiplied by, in [0, 1).
        patience: Epochs without improvement that are let pass, at least 0.
        threshold: Smallest change that counts as an improvement, at least 0.
        threshold_mode: "rel": threshold is a share of the best value; "abs": a difference.
        cooldown: Epochs after a reduction in which nothing is counted, at least 0.
        min_lr: Lower bound of the rate, or a list with one for each group.
        eps: A reduction by no more than this is left out, at least 0.

    Raises:
        ValueError: An option out of range, or another number of bounds than of groups.

    Example:
        >>> import numpy as np
        >>> from tilegrad import nn, optim
        >>> sgd = optim.SGD([nn.Parameter(np.zeros(1))], lr=1.0)
        >>> schedule, rates = ReduceLROnPlateau(sgd, factor=0.5, patience=1), []
        >>> for loss in (3.0, 2.0, 2.0, 2.5, 1.0):
        ...     schedule.step(loss)
        ...     rates += schedule.get_last_lr()
        >>> rates
        [1.0, 1.0, 1.0, 0.5, 0.5]

    Source: torch.optim.lr_scheduler.ReduceLROnPlateau.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        name = type(self).__name__
        self._attach(optimizer)
        check_option(name, "factor", factor, 0, 1)
        for option, value in (("patience", patience), ("threshold", threshold),
                              ("cooldown", cooldown), ("eps", eps)):  # fmt: skip
            check_option(name, option, value, 0)
        if mode not in ("min", "max"):
            raise ValueError(f"{name}: mode must be 'min' or 'max'; got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(
                f"{name}: threshold_mode must be 'rel' or 'abs'; got {threshold_mode!r}"
            )
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        self.eps = eps
        self.min_lr = list(min_lr) if isinstance(min_lr, Sequence) else min_lr
        self._bounds()
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self.last_epoch = 0

    def step(self, metrics: SupportsFloat) -> None:  # type: ignore[override]
        """Go on by one epoch with its measurement.

        Raises:
            ValueError: min_lr is a list, and the optimiser has got more groups.
        """
        value, bounds = float(metrics), self._bounds()
        self.last_epoch += 1
        if self._is_better(value):
            self.best = value
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
            for group, bound in zip(self.optimizer.param_groups, bounds, strict=True):
                lr = max(group["lr"] * self.factor, bound)
                if group["lr"] - lr > self.eps:
                    group["lr"] = lr

    def _is_better(self, value: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            limit = self.best * (1 + sign * self.threshold)
        else:
            limit = self.best + sign * self.threshold
        return sign * value > sign * limit

    def _bounds(self) -> list[float]:
        """Return the lower bound of each group's rate."""
        count = len(self.optimizer.param_groups)
        bounds = self.min_lr if isinstance(self.min_lr, list) else [self.min_lr] * count
        if len(bounds) != count:
            raise ValueError(
                f"{type(self).__name__}: min_lr must be a number or one for each of {count} "
                f"parameter groups; got {len(bounds)}"
            )
        return bounds
