# SPDX-License-Identifier: MIT
"""Schedules that lower the rate by a formula of the epoch."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from tilegrad.optim.lr_scheduler._base import LRScheduler
from tilegrad.optim.optimizer import Optimizer

Factor: TypeAlias = Callable[[int], float]


class StepLR(LRScheduler):
    """Multiply the rate by gamma every step_size epochs.

    Args:
        optimizer: The optimiser.
        step_size: Epochs between two changes, at least 1.
        gamma: The factor.
        last_epoch: See LRScheduler.

    Raises:
        ValueError: step_size is below 1.

    Example:
        >>> import numpy as np
        >>> from tilegrad import nn, optim
        >>> schedule = StepLR(optim.SGD([nn.Parameter(np.zeros(1))], lr=1.0), 2, gamma=0.5)
        >>> rates = []
        >>> for _ in range(5):
        ...     rates += schedule.get_last_lr()
        ...     schedule.step()
        >>> rates
        [1.0, 1.0, 0.5, 0.5, 0.25]

    Source: torch.optim.lr_scheduler.StepLR.
    """

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        if step_size < 1:
            raise ValueError(f"StepLR: step_size must be at least 1; got {step_size}")
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return each group's rate for ``last_epoch``."""
        change = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return [lr * self.gamma if change else lr for lr in self.get_last_lr()]


class MultiStepLR(LRScheduler):
    """Multiply the rate by gamma at each of the given epochs.

    Args:
        optimizer: The optimiser.
        milestones: The epochs; one given n times counts n times.
        gamma: The factor.
        last_epoch: See LRScheduler.

    Example:
        >>> import numpy as np
        >>> from tilegrad import nn, optim
        >>> sgd = optim.SGD([nn.Parameter(np.zeros(1))], lr=1.0)
        >>> schedule, rates = MultiStepLR(sgd, [1, 3], gamma=0.5), []
        >>> for _ in range(5):
        ...     rates += schedule.get_last_lr()
        ...     schedule.step()
        >>> rates
        [1.0, 0.5, 0.5, 0.25, 0.25]

    Source: torch.optim.lr_scheduler.MultiStepLR.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self.milestones = sorted(milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return each group's rate for ``last_epoch``."""
        factor = self.gamma ** self.milestones.count(self.last_epoch)
        return [lr * factor for lr in self.get_last_lr()]


class ExponentialLR(LRScheduler):
    """Multiply the rate by gamma every epoch.

    Args:
        optimizer: The optimiser.
        gamma: The factor.
        last_epoch: See LRScheduler.

    Example:
        >>> import numpy as np
        >>> from tilegrad import nn, optim
        >>> schedule = ExponentialLR(optim.SGD([nn.Parameter(np.zeros(1))], lr=1.0), gamma=0.5)
        >>> schedule.step()
        >>> schedule.step()
        >>> schedule.get_last_lr()
        [0.25]

    Source: torch.optim.lr_scheduler.ExponentialLR.
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return each group's rate for ``last_epoch``."""
        return [lr * self.gamma if self.last_epoch > 0 else lr for lr in self.get_last_lr()]


class CosineAnnealingLR(LRScheduler):
    """Lower the rate along half a cosine.

    Math: lr_t = eta_min + (lr_0 - eta_min) (1 + cos(pi t / T_max)) / 2, in torch's recursive form,
    so that a rate changed by hand in between is carried on from.

    Args:
        optimizer: The optimiser.
        T_max: Epochs of the half wave, at least 1.
        eta_min: The rate at its end.
        last_epoch: See LRScheduler.

    Raises:
        ValueError: T_max is below 1.

    Source: Loshchilov, Hutter 2017, arXiv:1608.03983; torch.optim.lr_scheduler.CosineAnnealingLR.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_max: int,  # noqa: N803  torch's name
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if T_max < 1:
            raise ValueError(f"CosineAnnealingLR: T_max must be at least 1; got {T_max}")
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return each group's rate for ``last_epoch``."""
        t, period, low = self.last_epoch, self.T_max, self.eta_min
        rates = self.get_last_lr()
        if t == 0:
            return rates
        if (t - 1 - period) % (2 * period) == 0:  # just behind the minimum: its ratio is 0 / 0
            rise = (1 - math.cos(math.pi / period)) / 2
            known = zip(self.base_lrs, rates, strict=False)
            return [lr + (base - low) * rise for base, lr in known]
        ratio = (1 + math.cos(math.pi * t / period)) / (1 + math.cos(math.pi * (t - 1) / period))
        return [ratio * (lr - low) + low for lr in rates]


class LambdaLR(LRScheduler):
    """Set the rate to the initial one times a function of the epoch.

    Math: lr_t = lr_0 f(t)

    Args:
        optimizer: The optimiser.
        lr_lambda: f, or a list with one for each group.
        last_epoch: See LRScheduler.

    Raises:
        ValueError: There are more or fewer functions than groups.

    Example:
        >>> import numpy as np
        >>> from tilegrad import nn, optim
        >>> sgd = optim.SGD([nn.Parameter(np.zeros(1))], lr=1.0)
        >>> schedule = LambdaLR(sgd, lambda epoch: 1 / (1 + epoch))
        >>> schedule.step()
        >>> schedule.get_last_lr()
        [0.5]

    Source: torch.optim.lr_scheduler.LambdaLR.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Factor | Sequence[Factor],
        last_epoch: int = -1,
    ) -> None:
        self._attach(optimizer)
        count = len(optimizer.param_groups)
        given = [lr_lambda] * count if callable(lr_lambda) else list(lr_lambda)
        if len(given) != count:
            raise ValueError(
                f"LambdaLR: lr_lambda must be one function or one for each of {count} groups; got "
                f"{len(given)}"
            )
        self.lr_lambdas = given
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return each group's rate for ``last_epoch``."""
        known = zip(self.base_lrs, self.lr_lambdas, strict=True)
        return [float(base * factor(self.last_epoch)) for base, factor in known]

    def state_dict(self) -> dict[str, Any]:
        """Return the state: of the functions only what callable objects hold, else None."""
        kept = [
            None
            if isinstance(factor, types.FunctionType) or not hasattr(factor, "__dict__")
            else dict(vars(factor))
            for factor in self.lr_lambdas
        ]
        return {**super().state_dict(), "lr_lambdas": kept}

    def _check_state(self, state: Mapping[str, Any]) -> None:
        super()._check_state(state)
        if len(state["lr_lambdas"]) != len(self.lr_lambdas):
            raise ValueError(
                f"LambdaLR.load_state_dict: expected {len(self.lr_lambdas)} functions; got "
                f"{len(state['lr_lambdas'])}"
            )

    def _fill(self, state: Mapping[str, Any]) -> None:
        super()._fill({key: value for key, value in state.items() if key != "lr_lambdas"})
        for factor, kept in zip(self.lr_lambdas, state["lr_lambdas"], strict=True):
            if kept is not None:
                vars(factor).update(kept)
