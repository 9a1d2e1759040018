# SPDX-License-Identifier: MIT
"""Schedules for a part of the training, and their sequence: warm-up, then decay."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from tilegrad.optim.lr_scheduler._base import LRScheduler
from tilegrad.optim.lr_scheduler._plateau import ReduceLROnPlateau
from tilegrad.optim.optimizer import Optimizer


class ConstantLR(LRScheduler):
    """Multiply the rate by a factor for the first epochs.

    Args:
        optimizer: The optimiser.
        factor: The factor, in [0, 1]; from 0 there is no way back.
        total_iters: The epoch that takes the factor away, at least 0; 0 never does, as in torch.
        last_epoch: See LRScheduler.

    Raises:
        ValueError: factor or total_iters is out of range.

    Example:
        >>> import numpy as np
        >>> from tilegrad import nn, optim
        >>> sgd = optim.SGD([nn.Parameter(np.zeros(1))], lr=1.0)
        >>> schedule, rates = ConstantLR(sgd, factor=0.5, total_iters=2), []
        >>> for _ in range(4):
        ...     rates += schedule.get_last_lr()
        ...     schedule.step()
        >>> rates
        [0.5, 0.5, 1.0, 1.0]

    Source: torch.optim.lr_scheduler.ConstantLR.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        _check_factor("ConstantLR: factor", factor)
        _check_epochs("ConstantLR: total_iters", total_iters)
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return each group's rate for ``last_epoch``."""
        factor = 1.0
        if self.last_epoch == 0:
            factor = self.factor
        elif self.last_epoch == self.total_iters:
            factor = 1 / self.factor if self.factor != 0 else 1.0
        return [lr * factor for lr in self.get_last_lr()]


class LinearLR(LRScheduler):
    """Multiply the rate by a factor that goes along a line: warm-up, or a linear decay.

    Math: lr_t = lr_0 (start_factor + (end_factor - start_factor) min(t, total_iters) / total_iters)
    in torch's recursive form, so that a rate changed by hand in between is carried on from.

    Args:
        optimizer: The optimiser.
        start_factor: The factor at first, in (0, 1].
        end_factor: The factor from epoch total_iters on, in [0, 1].
        total_iters: Epochs of the line, at least 0; with 0 start_factor stays, as in torch.
        last_epoch: See LRScheduler.

    Raises:
        ValueError: A factor or total_iters is out of range.

    Example:
        >>> import numpy as np
        >>> from tilegrad import nn, optim
        >>> sgd = optim.SGD([nn.Parameter(np.zeros(1))], lr=1.0)
        >>> schedule, rates = LinearLR(sgd, start_factor=0.25, total_iters=3), []
        >>> for _ in range(5):
        ...     rates += schedule.get_last_lr()
        ...     schedule.step()
        >>> rates
        [0.25, 0.5, 0.75, 1.0, 1.0]

    Source: torch.optim.lr_scheduler.LinearLR.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if start_factor == 0:
            raise ValueError("LinearLR: start_factor must be in (0, 1]; got 0")
        _check_factor("LinearLR: start_factor", start_factor)
        _check_factor("LinearLR: end_factor", end_factor)
        _check_epochs("LinearLR: total_iters", total_iters)
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return each group's rate for ``last_epoch``."""
        t, total, rise = self.last_epoch, self.total_iters, self.end_factor - self.start_factor
        factor = 1.0
        if t == 0:
            factor = self.start_factor
        elif t <= total:
            factor = 1 + rise / (total * self.start_factor + (t - 1) * rise)
        return [lr * factor for lr in self.get_last_lr()]


class SequentialLR(LRScheduler):
    """Run several schedules, one after the other; each begins with the initial rates.

    Args:
        optimizer: The optimiser.
        schedulers: The schedules, all made for this optimiser.
        milestones: The epoch with which each but the first begins, in order.
        last_epoch: -1; a run is taken up again with ``load_state_dict``.

    Raises:
        TypeError: A schedule is none.
        ValueError: No schedule, one of another optimiser, a ReduceLROnPlateau, or milestones that
            do not fit.

    Example:
        >>> import numpy as np
        >>> from tilegrad import nn, optim
        >>> sgd = optim.SGD([nn.Parameter(np.zeros(1))], lr=1.0)
        >>> warm_up = optim.lr_scheduler.LinearLR(sgd, start_factor=0.5, total_iters=2)
        >>> decay = optim.lr_scheduler.ExponentialLR(sgd, gamma=0.5)
        >>> schedule, rates = SequentialLR(sgd, [warm_up, decay], milestones=[2]), []
        >>> for _ in range(5):
        ...     rates += schedule.get_last_lr()
        ...     schedule.step()
        >>> rates
        [0.5, 0.75, 1.0, 0.5, 0.25]

    Source: torch.optim.lr_scheduler.SequentialLR; warm-up: Goyal et al. 2017, arXiv:1706.02677.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        if len(schedulers) == 0:
            raise ValueError("SequentialLR: schedulers must have at least one; got none")
        for i, scheduler in enumerate(schedulers):
            if not isinstance(scheduler, LRScheduler):
                raise TypeError(
                    f"SequentialLR: schedulers must be LRSchedulers; got "
                    f"{type(scheduler).__name__} at {i}"
                )
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ValueError(
                    f"SequentialLR: a ReduceLROnPlateau needs a measurement and cannot be in a "
                    f"sequence; got one at {i}"
                )
            if scheduler.optimizer is not optimizer:
                raise ValueError(
                    f"SequentialLR: all schedulers must be of this optimizer; got another's at {i}"
                )
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"SequentialLR: {len(schedulers)} schedulers need {len(schedulers) - 1} "
                f"milestones; got {len(milestones)}"
            )
        if any(later < earlier for earlier, later in pairwise((0, *milestones))):
            raise ValueError(
                f"SequentialLR: milestones must be epochs in order; got {list(milestones)}"
            )
        if last_epoch != -1:
            raise ValueError(
                f"SequentialLR: last_epoch must be -1 (take a run up again with load_state_dict); "
                f"got {last_epoch}"
            )
        self._schedulers = list(schedulers)
        self._milestones = list(milestones)
        for scheduler in schedulers:
            scheduler.last_epoch = -1  # its turn is to come
        super().__init__(optimizer)

    def step(self) -> None:
        """Go on by one epoch and set the rates by the schedule whose turn it is."""
        self.last_epoch += 1
        turn = bisect_right(self._milestones, self.last_epoch)
        if self.last_epoch == (0, *self._milestones)[turn]:
            self._schedulers[turn]._restart()
        else:
            self._schedulers[turn].step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state, those of the schedules included."""
        states = [scheduler.state_dict() for scheduler in self._schedulers]
        return {**super().state_dict(), "_schedulers": states}

    def _check_state(self, state: Mapping[str, Any]) -> None:
        super()._check_state(state)
        if len(state["_schedulers"]) != len(self._schedulers):
            raise ValueError(
                f"SequentialLR.load_state_dict: expected {len(self._schedulers)} schedulers; got "
                f"{len(state['_schedulers'])}"
            )
        for scheduler, part in zip(self._schedulers, state["_schedulers"], strict=True):
            scheduler._check_state(part)

    def _fill(self, state: Mapping[str, Any]) -> None:
        super()._fill({key: value for key, value in state.items() if key != "_schedulers"})
        for scheduler, part in zip(self._schedulers, state["_schedulers"], strict=True):
            scheduler._fill(part)


def _check_factor(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1]; got {value}")


def _check_epochs(name: str, value: int) -> None:
    if not value >= 0:
        raise ValueError(f"{name} must be at least 0; got {value}")
