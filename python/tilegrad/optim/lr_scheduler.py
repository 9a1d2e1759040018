# SPDX-License-Identifier: MIT
"""Learning-rate schedules. ``step()`` once an epoch, after the optimiser's steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tilegrad.optim.optimizer import Optimizer


class LRScheduler:
    """Base class: keeps each group's initial rate and asks the subclass for the next ones.

    Args:
        optimizer: The optimiser whose groups' "lr" is set.
        last_epoch: -1 to start; the last epoch done when a run is taken up again.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ValueError(
                    f"{type(self).__name__}: last_epoch {last_epoch} needs 'initial_lr' in "
                    f"parameter group {i}; load the optimiser's state first"
                )
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self.step()

    def get_lr(self) -> list[float]:
        """Return each group's rate for ``last_epoch``, computed from the present one."""
        raise TypeError(f"{type(self).__name__}: the class does not define get_lr")

    def get_last_lr(self) -> list[float]:
        """Return each group's present rate."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def step(self) -> None:
        """Go on by one epoch and set the rates."""
        self.last_epoch += 1
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = lr

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimiser."""
        return {key: value for key, value in vars(self).items() if key != "optimizer"}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state.

        Raises:
            ValueError: Names other than this schedule's.
        """
        own = self.state_dict().keys()
        if state.keys() != own:
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: expected {sorted(own)}; "
                f"got {sorted(state)}"
            )
        vars(self).update(state)


class StepLR(LRScheduler):
    """Multiply the rate by gamma every step_size epochs.

    Args:
        optimizer: The optimiser.
        step_size: Epochs between two changes, at least 1.
        gamma: The factor.
        last_epoch: See LRScheduler.

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


class CosineAnnealingLR(LRScheduler):
    """Lower the rate along half a cosine.

    Math: lr_t = eta_min + (lr_0 - eta_min) (1 + cos(pi t / T_max)) / 2, in torch's recursive form,
    so that a rate changed by hand in between is carried on from.

    Args:
        optimizer: The optimiser.
        T_max: Epochs of the half wave, at least 1.
        eta_min: The rate at its end.
        last_epoch: See LRScheduler.

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
            return [lr + (base - low) * rise for base, lr in zip(self.base_lrs, rates, strict=True)]
        ratio = (1 + math.cos(math.pi * t / period)) / (1 + math.cos(math.pi * (t - 1) / period))
        return [ratio * (lr - low) + low for lr in rates]
